// What a capable Go programmer would write for the same job in a day: a reverse
// tunnel of flynn/noise and hashicorp/yamux with a SOCKS5 entrance. A subject of the
// bench, with no pairing, policy, counters or limits.
//
//	gotunnel hub TUNNEL-ADDRESS SOCKS-ADDRESS      prints its public key
//	gotunnel node TUNNEL-ADDRESS HUB-PUBLIC-KEY
package main

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/flynn/noise"
	"github.com/hashicorp/yamux"
)

const maxPlaintext = 65_535 - 16

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherAESGCM, noise.HashSHA256)

func main() {
	log.SetFlags(0)
	switch {
	case len(os.Args) == 4 && os.Args[1] == "hub":
		hub(os.Args[2], os.Args[3])
	case len(os.Args) == 4 && os.Args[1] == "node":
		node(os.Args[2], os.Args[3])
	default:
		log.Fatal("usage: gotunnel hub TUNNEL SOCKS | node TUNNEL KEY")
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// --- records ---------------------------------------------------------------------

// secure is a net.Conn whose bytes travel in Noise records: length u16, ciphertext.
type secure struct {
	net.Conn
	send, receive *noise.CipherState
	writing       sync.Mutex
	out, in, rest []byte
}

func (s *secure) Write(data []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for sent := 0; sent < len(data); {
		piece := data[sent:min(len(data), sent+maxPlaintext)]
		s.out = binary.BigEndian.AppendUint16(s.out[:0], uint16(len(piece)+16))
		var err error
		if s.out, err = s.send.Encrypt(s.out, nil, piece); err != nil {
			return sent, err
		}
		if _, err = s.Conn.Write(s.out); err != nil {
			return sent, err
		}
		sent += len(piece)
	}
	return len(data), nil
}

func (s *secure) Read(data []byte) (int, error) {
	if len(s.rest) == 0 {
		record, err := readMessage(s.Conn)
		if err != nil {
			return 0, err
		}
		if s.in, err = s.receive.Decrypt(s.in[:0], nil, record); err != nil {
			return 0, err
		}
		s.rest = s.in
	}
	n := copy(data, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func readMessage(conn net.Conn) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(conn, message)
	return message, err
}

func writeMessage(conn net.Conn, message []byte) error {
	_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}

func handshake(conn net.Conn, key noise.DHKey, peer []byte) (*secure, error) {
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Pattern: noise.HandshakeIK, Initiator: peer != nil,
		StaticKeypair: key, PeerStatic: peer,
	})
	if err != nil {
		return nil, err
	}
	if peer != nil {
		first, _, _, err := state.WriteMessage(nil, nil)
		if err != nil {
			return nil, err
		}
		if err := writeMessage(conn, first); err != nil {
			return nil, err
		}
		second, err := readMessage(conn)
		if err != nil {
			return nil, err
		}
		_, ours, theirs, err := state.ReadMessage(nil, second)
		return &secure{Conn: conn, send: ours, receive: theirs}, err
	}
	first, err := readMessage(conn)
	if err != nil {
		return nil, err
	}
	if _, _, _, err := state.ReadMessage(nil, first); err != nil {
		return nil, err
	}
	second, theirs, ours, err := state.WriteMessage(nil, nil)
	if err != nil {
		return nil, err
	}
	return &secure{Conn: conn, send: ours, receive: theirs}, writeMessage(conn, second)
}

// --- hub -------------------------------------------------------------------------

func hub(tunnel, socks string) {
	key, err := suite.GenerateKeypair(rand.Reader)
	check(err)
	nodes, err := net.Listen("tcp", tunnel)
	check(err)
	clients, err := net.Listen("tcp", socks)
	check(err)
	fmt.Println(hex.EncodeToString(key.Public))
	conn, err := nodes.Accept()
	check(err)
	channel, err := handshake(conn, key, nil)
	check(err)
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	session, err := yamux.Client(channel, config)
	check(err)
	for {
		client, err := clients.Accept()
		check(err)
		go serve(client, session)
	}
}

func serve(client net.Conn, session *yamux.Session) {
	defer client.Close()
	target, err := socksRequest(client)
	if err != nil {
		return
	}
	stream, err := session.OpenStream()
	if err != nil {
		return
	}
	defer stream.Close()
	if writeMessage(stream, []byte(target)) != nil {
		return
	}
	status := make([]byte, 1)
	if _, err := io.ReadFull(stream, status); err != nil {
		return
	}
	client.Write([]byte{5, status[0], 0, 1, 0, 0, 0, 0, 0, 0})
	if status[0] == 0 {
		relay(client, stream)
	}
}

func socksRequest(client net.Conn) (string, error) {
	head := make([]byte, 262)
	if _, err := io.ReadFull(client, head[:2]); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(client, head[:head[1]]); err != nil {
		return "", err
	}
	if _, err := client.Write([]byte{5, 0}); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(client, head[:5]); err != nil {
		return "", err
	}
	var rest, host int
	switch head[3] {
	case 1:
		rest, host = 4+2-1, 4
	case 3:
		rest, host = int(head[4])+2, int(head[4])
	case 4:
		rest, host = 16+2-1, 16
	default:
		return "", errors.New("address type")
	}
	if _, err := io.ReadFull(client, head[5:5+rest]); err != nil {
		return "", err
	}
	name := net.IP(head[4 : 4+host]).String()
	port := head[4+host:]
	if head[3] == 3 {
		name, port = string(head[5:5+host]), head[5+host:]
	}
	return net.JoinHostPort(name, strconv.Itoa(int(binary.BigEndian.Uint16(port)))), nil
}

// --- node ------------------------------------------------------------------------

func node(tunnel, peer string) {
	key, err := suite.GenerateKeypair(rand.Reader)
	check(err)
	public, err := hex.DecodeString(peer)
	check(err)
	conn, err := net.Dial("tcp", tunnel)
	check(err)
	channel, err := handshake(conn, key, public)
	check(err)
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	session, err := yamux.Server(channel, config)
	check(err)
	for {
		stream, err := session.AcceptStream()
		check(err)
		go connect(stream)
	}
}

func connect(stream *yamux.Stream) {
	defer stream.Close()
	target, err := readMessage(stream)
	if err != nil {
		return
	}
	conn, err := net.Dial("tcp", string(target))
	if err != nil {
		stream.Write([]byte{5})
		return
	}
	defer conn.Close()
	if _, err := stream.Write([]byte{0}); err == nil {
		relay(conn, stream)
	}
}

func relay(one, other net.Conn) {
	done := make(chan struct{}, 2)
	copyTo := func(to, from net.Conn) {
		io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		} else {
			to.Close() // yamux: closes our direction only
		}
		done <- struct{}{}
	}
	go copyTo(one, other)
	go copyTo(other, one)
	<-done
	<-done
}
