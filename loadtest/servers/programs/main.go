// What Go's net/http serves: it reads the body, and says how long it was.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func answer(response http.ResponseWriter, request *http.Request) {
	size, _ := io.Copy(io.Discard, request.Body)
	fmt.Fprintf(response, "%d\n", size)
}

func main() {
	server := http.Server{
		Addr:        "127.0.0.1:" + os.Args[1],
		Handler:     http.HandlerFunc(answer),
		IdleTimeout: 3 * time.Second,
	}
	panic(server.ListenAndServe())
}
