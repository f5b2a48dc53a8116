// The bench's origin and load generator: compiled, so that it measures the
// tunnels and not itself.
//
//	load origin ADDRESS                     a server for everything below
//	load WORK -via socks5|http|direct -proxy ADDRESS -origin ADDRESS [options]
//
// Each work prints one JSON object. The origin speaks as little as possible: a
// connection begins with one byte that says what it is for, and eight more.
package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	download = 'd' // 8 bytes: how many to send
	upload   = 'u' // 8 bytes: how many follow; the answer is one byte
	requests = 'r' // then 100 bytes at a time, each answered by 100
	block    = 256 * 1024
	message  = 100 // bytes of a request and of its answer
)

var (
	via     = flag.String("via", "socks5", "socks5, http or direct")
	proxy   = flag.String("proxy", "", "address of the proxy")
	origin  = flag.String("origin", "", "address of the origin")
	size    = flag.Int64("size", 1_000_000_000, "bytes to carry, all streams together")
	streams = flag.Int("streams", 1, "streams or clients at once")
	seconds = flag.Float64("seconds", 3, "how long to go on")
	stalled = flag.Bool("stalled", false, "beside a download that is not read")
	bulk    = flag.Bool("bulk", false, "beside a download that is")
	held    = flag.Int("held", 0, "idle streams held meanwhile")
)

func main() {
	work := os.Args[1]
	if work == "origin" {
		serve(os.Args[2])
		return
	}
	flag.CommandLine.Parse(os.Args[2:])
	works := map[string]func() map[string]any{
		"down": down, "up": up, "requests": keptAlive, "connections": newConnections,
		"idle": idle, "first-byte": firstByte,
	}
	report(works[work]())
}

func report(result map[string]any) {
	json.NewEncoder(os.Stdout).Encode(result)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// --- the origin ------------------------------------------------------------------

func serve(address string) {
	listener, err := net.Listen("tcp", address)
	fail(err)
	fmt.Println(listener.Addr())
	for {
		conn, err := listener.Accept()
		fail(err)
		go func() {
			defer conn.Close()
			answer(conn)
		}()
	}
}

func answer(conn net.Conn) {
	head := make([]byte, 9)
	if _, err := io.ReadFull(conn, head); err != nil {
		return
	}
	count := int64(binary.BigEndian.Uint64(head[1:]))
	switch head[0] {
	case download:
		data := make([]byte, block)
		for count > 0 {
			n, err := conn.Write(data[:min(count, block)])
			if err != nil {
				return
			}
			count -= int64(n)
		}
	case upload:
		if read(conn, count) == nil {
			conn.Write([]byte{1})
		}
	case requests:
		data := make([]byte, message)
		for {
			if _, err := io.ReadFull(conn, data); err != nil {
				return
			}
			if _, err := conn.Write(data); err != nil {
				return
			}
		}
	}
}

func read(conn net.Conn, count int64) error {
	data := make([]byte, block)
	for count > 0 {
		n, err := conn.Read(data[:min(count, block)])
		count -= int64(n)
		if err != nil && count > 0 {
			return err
		}
	}
	return nil
}

// --- through the proxy -----------------------------------------------------------

func dial(kind byte, count int64) (net.Conn, error) {
	address := *proxy
	if *via == "direct" {
		address = *origin
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if err := ask(conn); err != nil {
		conn.Close()
		return nil, err
	}
	head := make([]byte, 9, 9+message)
	head[0] = kind
	binary.BigEndian.PutUint64(head[1:], uint64(count))
	_, err = conn.Write(head)
	return conn, err
}

func ask(conn net.Conn) error {
	host, port, err := net.SplitHostPort(*origin)
	if err != nil {
		return err
	}
	switch *via {
	case "socks5":
		number, _ := strconv.Atoi(port)
		request := append([]byte{5, 1, 0, 1}, net.ParseIP(host).To4()...)
		request = binary.BigEndian.AppendUint16(request, uint16(number))
		if _, err := conn.Write([]byte{5, 1, 0}); err != nil {
			return err
		}
		reply := make([]byte, 10)
		if _, err := io.ReadFull(conn, reply[:2]); err != nil {
			return err
		}
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, reply); err != nil {
			return err
		}
		if reply[1] != 0 {
			return fmt.Errorf("SOCKS5 reply %d", reply[1])
		}
	case "http":
		fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", *origin, *origin)
		head := make([]byte, 0, 512)
		for len(head) < 4 || string(head[len(head)-4:]) != "\r\n\r\n" {
			one := make([]byte, 1)
			if _, err := conn.Read(one); err != nil {
				return err
			}
			head = append(head, one[0])
		}
		if string(head[9:12]) != "200" {
			return errors.New(string(head[:12]))
		}
	}
	return nil
}

// --- the works -------------------------------------------------------------------

func down() map[string]any {
	return transfer(func(share int64) error {
		conn, err := dial(download, share)
		if err != nil {
			return err
		}
		defer conn.Close()
		return read(conn, share)
	})
}

func up() map[string]any {
	return transfer(func(share int64) error {
		conn, err := dial(upload, share)
		if err != nil {
			return err
		}
		defer conn.Close()
		data := make([]byte, block)
		for left := share; left > 0; {
			n, err := conn.Write(data[:min(left, block)])
			if err != nil {
				return err
			}
			left -= int64(n)
		}
		_, err = io.ReadFull(conn, data[:1])
		return err
	})
}

func transfer(carry func(int64) error) map[string]any {
	started := time.Now()
	var group sync.WaitGroup
	for range *streams {
		group.Add(1)
		go func() {
			defer group.Done()
			fail(carry(*size / int64(*streams)))
		}()
	}
	group.Wait()
	took := time.Since(started).Seconds()
	return map[string]any{"MB/s": float64(*size) / took / 1e6, "seconds": took}
}

func hold() []net.Conn {
	var conns []net.Conn
	for range *held {
		conn, err := dial(requests, 0)
		fail(err)
		exchange(conn, make([]byte, message))
		conns = append(conns, conn)
	}
	return conns
}

func exchange(conn net.Conn, data []byte) {
	_, err := conn.Write(data)
	fail(err)
	_, err = io.ReadFull(conn, data)
	fail(err)
}

func beside() func() {
	conns := hold()
	if *stalled || *bulk {
		conn, err := dial(download, 1<<50)
		fail(err)
		conns = append(conns, conn)
		if *bulk {
			go read(conn, 1<<50)
		} else {
			time.Sleep(time.Second) // for its windows to fill
		}
	}
	return func() {
		for _, conn := range conns {
			conn.Close()
		}
	}
}

func keptAlive() map[string]any {
	end := beside()
	defer end()
	times := make([][]float64, *streams)
	var group sync.WaitGroup
	deadline := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	for client := range *streams {
		group.Add(1)
		go func() {
			defer group.Done()
			conn, err := dial(requests, 0)
			fail(err)
			defer conn.Close()
			data := make([]byte, message)
			for time.Now().Before(deadline) {
				started := time.Now()
				exchange(conn, data)
				times[client] = append(times[client], time.Since(started).Seconds())
			}
		}()
	}
	group.Wait()
	var all []float64
	for _, some := range times {
		all = append(all, some...)
	}
	sort.Float64s(all)
	return map[string]any{
		"per second": float64(len(all)) / *seconds,
		"p50 ms":     all[len(all)/2] * 1e3,
		"p99 ms":     all[len(all)*99/100] * 1e3,
		"requests":   len(all),
	}
}

func newConnections() map[string]any {
	var made atomic.Int64
	var group sync.WaitGroup
	deadline := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	for range *streams {
		group.Add(1)
		go func() {
			defer group.Done()
			data := make([]byte, message)
			for time.Now().Before(deadline) {
				conn, err := dial(requests, 0)
				fail(err)
				exchange(conn, data)
				conn.Close()
				made.Add(1)
			}
		}()
	}
	group.Wait()
	return map[string]any{"per second": float64(made.Load()) / *seconds}
}

// idle holds streams until its input ends, so that somebody can look at the memory.
func idle() map[string]any {
	conns := hold()
	report(map[string]any{"held": len(conns)})
	io.Copy(io.Discard, os.Stdin)
	return map[string]any{"released": len(conns)}
}

func firstByte() map[string]any {
	best := time.Hour
	for range 5 {
		started := time.Now()
		conn, err := dial(download, 1)
		fail(err)
		fail(read(conn, 1))
		conn.Close()
		best = min(best, time.Since(started))
	}
	return map[string]any{"ms": best.Seconds() * 1e3}
}
