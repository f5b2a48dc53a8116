// Fetches URLs ten times each through a proxy, with net/http:
//
//	fetch CA.PEM PROXY URL...
//
// Prints status and SHA-256 of each body.
package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
)

func main() {
	pem, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	proxy, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyURL(proxy),
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: false,
	}}
	for _, address := range os.Args[3:] {
		for i := 0; i < 10; i++ {
			response, err := client.Get(address)
			if err != nil {
				log.Fatal(err)
			}
			digest := sha256.New()
			if _, err := io.Copy(digest, response.Body); err != nil {
				log.Fatal(err)
			}
			response.Body.Close()
			fmt.Printf("%d %x\n", response.StatusCode, digest.Sum(nil))
		}
	}
}
