// Sends the requests on standard input, a line each of method, target and bytes of the body, by Go's net/http over HTTP/2,
// all at once; prints of each its status and its body in base64, in their order.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	url, authority, key := os.Args[1], os.Args[2], os.Args[3]
	pem, err := os.ReadFile(authority)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, DisableCompression: true}
	client := &http.Client{Transport: transport}
	var answers []string
	var under_way sync.WaitGroup
	lines := bufio.NewScanner(os.Stdin)
	var asked []string
	for lines.Scan() {
		asked = append(asked, lines.Text())
	}
	answers = make([]string, len(asked))
	for number, line := range asked {
		under_way.Add(1)
		go func(number int, line string) {
			defer under_way.Done()
			var method, target string
			var size int
			_, err := fmt.Sscan(line, &method, &target, &size)
			check(err)
			var body io.Reader
			if size > 0 {
				body = bytes.NewReader(bytes.Repeat([]byte("u"), size))
			}
			request, err := http.NewRequest(method, url+target, body)
			check(err)
			request.Header.Set("X-Api-Key", key)
			answer, err := client.Do(request)
			check(err)
			if answer.Proto != "HTTP/2.0" {
				panic(answer.Proto)
			}
			content, err := io.ReadAll(answer.Body)
			check(err)
			answers[number] = fmt.Sprint(answer.StatusCode, " ", base64.StdEncoding.EncodeToString(content))
		}(number, line)
	}
	under_way.Wait()
	for _, answer := range answers {
		fmt.Println(answer)
	}
}
