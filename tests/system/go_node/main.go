// A node in Go, written from docs/protocol.md alone, with its own Noise library.
//
//	go_node -key FILE -allow HOST:PORT LINK
//
// The first run makes a key and enrols with the link's token; later runs connect by
// the key. It serves one hub until the tunnel ends. Small rather than complete: one
// target may be allowed, all else is refused.
package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/flynn/noise"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/curve25519"
)

// Frame types (protocol.md, section 3).
const (
	tEnroll, tEnrollOk, tPing, tPong, tHello, tGoAway = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
	tConnect, tConnectOk, tConnectFail                = 0x10, 0x11, 0x12
	tData, tClose, tEOF, tWindow                      = 0x20, 0x21, 0x22, 0x23
)

const (
	suiteName   = "Noise_IK_25519_AESGCM_SHA256"
	ourWindow   = 100_000 // bytes of credit that we grant each stream
	maxPayload  = 65_510
	rekeyAfter  = 1 << 16 // records
	notAllowed  = 2       // CONNECT_FAIL
	refused     = 5
	closedReset = 1 // CLOSE
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func frame(kind byte, id uint32, payload []byte) []byte {
	out := make([]byte, 9, 9+len(payload))
	out[0] = kind
	binary.BigEndian.PutUint32(out[1:], id)
	binary.BigEndian.PutUint32(out[5:], uint32(len(payload)))
	return append(out, payload...)
}

func text(s string) []byte { return append([]byte{byte(len(s))}, s...) }

func hello() []byte {
	out := make([]byte, 18)
	binary.BigEndian.PutUint32(out[6:], ourWindow)
	binary.BigEndian.PutUint64(out[10:], uint64(time.Now().UnixNano()))
	return frame(tHello, 0, append(out, text("go-node/1")...))
}

// direction is one half of the tunnel: a cipher, and the count that rekeys it.
type direction struct {
	cipher  *noise.CipherState
	records int
}

func (d *direction) advance() {
	if d.records++; d.records%rekeyAfter == 0 {
		d.cipher.Rekey()
	}
}

type stream struct {
	id      uint32
	mu      sync.Mutex
	cond    *sync.Cond
	credit  uint32   // what the hub lets us send
	queue   [][]byte // what the hub sent and the target has not got yet
	ended   bool     // EOF from the hub
	dead    bool
	conn    *net.TCPConn
	pending int // directions that have not ended
}

type node struct {
	conn    net.Conn
	in, out direction
	writing sync.Mutex
	mu      sync.Mutex
	streams map[uint32]*stream
	credit  uint32 // initial, from the hub's HELLO
	allow   string
}

func (n *node) send(kind byte, id uint32, payload []byte) {
	n.writing.Lock()
	defer n.writing.Unlock()
	sealed, err := n.out.cipher.Encrypt(make([]byte, 2), nil, frame(kind, id, payload))
	check(err)
	binary.BigEndian.PutUint16(sealed, uint16(len(sealed)-2))
	n.out.advance()
	if _, err := n.conn.Write(sealed); err != nil {
		log.Print("write: ", err)
	}
}

func (n *node) find(id uint32) *stream {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.streams[id]
}

func (n *node) forget(s *stream) {
	n.mu.Lock()
	delete(n.streams, s.id)
	n.mu.Unlock()
	s.mu.Lock()
	s.dead = true
	s.cond.Broadcast()
	s.mu.Unlock()
}

// target reads SOCKS5's address: what CONNECT carries.
func target(p []byte) string {
	port := strconv.Itoa(int(binary.BigEndian.Uint16(p[len(p)-2:])))
	switch p[0] {
	case 1, 4:
		return net.JoinHostPort(net.IP(p[1:len(p)-2]).String(), port)
	default:
		return net.JoinHostPort(string(p[2:len(p)-2]), port)
	}
}

func (n *node) serve(s *stream, address string) {
	if address != n.allow {
		n.forget(s)
		n.send(tConnectFail, s.id, append([]byte{notAllowed}, "not allowed here"...))
		return
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		n.forget(s)
		n.send(tConnectFail, s.id, append([]byte{refused}, "connection refused"...))
		return
	}
	s.conn = conn.(*net.TCPConn)
	peer := conn.RemoteAddr().(*net.TCPAddr)
	ok := append([]byte{1}, peer.IP.To4()...)
	n.send(tConnectOk, s.id, binary.BigEndian.AppendUint16(ok, uint16(peer.Port)))
	go n.fromHub(s)
	n.fromTarget(s)
}

// done counts down the directions; the stream is over when both have ended.
func (n *node) done(s *stream) {
	s.mu.Lock()
	s.pending--
	over := s.pending == 0
	s.mu.Unlock()
	if over {
		n.forget(s)
		s.conn.Close()
	}
}

func (n *node) abort(s *stream) {
	s.mu.Lock()
	already := s.dead
	s.mu.Unlock()
	n.forget(s)
	s.conn.SetLinger(0)
	s.conn.Close()
	if !already {
		n.send(tClose, s.id, []byte{closedReset})
	}
}

func (n *node) fromHub(s *stream) {
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.ended && !s.dead {
			s.cond.Wait()
		}
		if s.dead {
			s.mu.Unlock()
			s.conn.SetLinger(0)
			s.conn.Close()
			return
		}
		if len(s.queue) == 0 {
			s.mu.Unlock()
			s.conn.CloseWrite()
			n.done(s)
			return
		}
		data := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		if _, err := s.conn.Write(data); err != nil {
			n.abort(s)
			return
		}
		n.send(tWindow, s.id, binary.BigEndian.AppendUint32(nil, uint32(len(data))))
	}
}

func (n *node) fromTarget(s *stream) {
	buffer := make([]byte, maxPayload)
	for {
		s.mu.Lock()
		for s.credit == 0 && !s.dead {
			s.cond.Wait()
		}
		room, dead := s.credit, s.dead
		s.mu.Unlock()
		if dead {
			return
		}
		count, err := s.conn.Read(buffer[:min(int(room), len(buffer))])
		if count > 0 {
			s.mu.Lock()
			s.credit -= uint32(count)
			s.mu.Unlock()
			n.send(tData, s.id, buffer[:count])
		}
		if errors.Is(err, io.EOF) {
			n.send(tEOF, s.id, nil)
			n.done(s)
			return
		}
		if err != nil {
			n.abort(s)
			return
		}
	}
}

func (n *node) handle(kind byte, id uint32, payload []byte) error {
	s := n.find(id)
	switch {
	case kind == tPing:
		n.send(tPong, 0, payload)
	case kind == tConnect:
		s = &stream{id: id, credit: n.credit, pending: 2}
		s.cond = sync.NewCond(&s.mu)
		n.mu.Lock()
		n.streams[id] = s
		n.mu.Unlock()
		go n.serve(s, target(payload))
	case kind == tGoAway:
		log.Printf("goodbye from the hub: %s", payload[6:])
	case s == nil || kind >= 0x80: // a frame that crossed our end, or one of a later version
	case kind == tData:
		s.mu.Lock()
		s.queue = append(s.queue, append([]byte(nil), payload...))
		held := 0
		for _, data := range s.queue {
			held += len(data)
		}
		s.cond.Broadcast()
		s.mu.Unlock()
		if held > ourWindow {
			return fmt.Errorf("the hub does not honour credit: %d bytes", held)
		}
	case kind == tEOF:
		s.mu.Lock()
		s.ended = true
		s.cond.Broadcast()
		s.mu.Unlock()
	case kind == tWindow:
		s.mu.Lock()
		s.credit += binary.BigEndian.Uint32(payload)
		s.cond.Broadcast()
		s.mu.Unlock()
	case kind == tClose:
		n.forget(s)
	}
	return nil
}

func (n *node) run() error {
	length := make([]byte, 2)
	for {
		if _, err := io.ReadFull(n.conn, length); err != nil {
			return err
		}
		sealed := make([]byte, binary.BigEndian.Uint16(length))
		if _, err := io.ReadFull(n.conn, sealed); err != nil {
			return err
		}
		plain, err := n.in.cipher.Decrypt(nil, nil, sealed)
		if err != nil {
			return err
		}
		n.in.advance()
		for len(plain) > 0 {
			size := binary.BigEndian.Uint32(plain[5:])
			if err := n.handle(plain[0], binary.BigEndian.Uint32(plain[1:]), plain[9:9+size]); err != nil {
				return err
			}
			plain = plain[9+size:]
		}
	}
}

// loadKey returns the stored key, or makes one; whether it is new.
func loadKey(path string) (noise.DHKey, bool) {
	private, err := os.ReadFile(path)
	fresh := err != nil
	if fresh {
		private = make([]byte, 32)
		_, err = rand.Read(private)
		check(err)
		check(os.WriteFile(path, private, 0o600))
	}
	public, err := curve25519.X25519(private, curve25519.Basepoint)
	check(err)
	return noise.DHKey{Private: private, Public: public}, fresh
}

func mac1(hub, length, message []byte) []byte {
	key := blake2s.Sum256(append([]byte("restunnel/1 mac1 "+suiteName), hub...))
	mac, err := blake2s.New128(key[:])
	check(err)
	mac.Write(length)
	mac.Write(message)
	return mac.Sum(nil)
}

func dial(address string, hub, token []byte, key noise.DHKey, enrol bool) *node {
	handshake, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:   noise.NewCipherSuite(noise.DH25519, noise.CipherAESGCM, noise.HashSHA256),
		Pattern:       noise.HandshakeIK,
		Initiator:     true,
		Prologue:      []byte("restunnel/1"),
		StaticKeypair: key,
		PeerStatic:    hub,
	})
	check(err)
	payload := hello()
	if enrol {
		payload = append(payload, frame(tEnroll, 0, append(append([]byte(nil), token...), text("go")...))...)
	}
	message, _, _, err := handshake.WriteMessage(nil, payload)
	check(err)
	conn, err := net.Dial("tcp", address)
	check(err)
	length := binary.BigEndian.AppendUint16(nil, uint16(16+len(message)))
	_, err = conn.Write(append(append(append([]byte(nil), length...), mac1(hub, length, message)...), message...))
	check(err)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err = io.ReadFull(conn, length)
	check(err)
	answer := make([]byte, binary.BigEndian.Uint16(length))
	_, err = io.ReadFull(conn, answer)
	check(err)
	conn.SetReadDeadline(time.Time{})
	payload, send, receive, err := handshake.ReadMessage(nil, answer)
	check(err)
	if payload[0] != tHello {
		log.Fatal("the answer does not begin with HELLO")
	}
	return &node{
		conn:    conn,
		in:      direction{cipher: receive},
		out:     direction{cipher: send},
		streams: map[uint32]*stream{},
		credit:  binary.BigEndian.Uint32(payload[9+6:]),
	}
}

func main() {
	keyFile := flag.String("key", "key.bin", "where the key is kept")
	allow := flag.String("allow", "", "the one target that is allowed")
	flag.Parse()
	link, err := url.Parse(flag.Arg(0))
	check(err)
	fields := link.Query()
	hub, err := base64.RawURLEncoding.DecodeString(fields.Get("k"))
	check(err)
	token, err := base64.RawURLEncoding.DecodeString(fields.Get("t"))
	check(err)
	key, fresh := loadKey(*keyFile)
	n := dial(fields.Get("h"), hub, token, key, fresh)
	n.allow = *allow
	n.send(tPing, 0, make([]byte, 8))
	fmt.Println("connected")
	fmt.Println("tunnel ended:", n.run())
}
