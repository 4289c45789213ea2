// An event stream with Go's standard library alone: a hub that sends each event to a
// buffered channel per client, and a handler that writes and flushes it.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// The number of events that a client may be behind.
const backlog = 64

const heartbeat = 15 * time.Second

type hub struct {
	mutex   sync.RWMutex
	clients map[chan string]struct{}
	newest  uint64
}

func (h *hub) subscribe(w http.ResponseWriter, r *http.Request) {
	flusher, ok := w.(http.Flusher)
	if !ok {
		http.Error(w, "this connection cannot stream", http.StatusInternalServerError)
		return
	}
	events := make(chan string, backlog)
	h.mutex.Lock()
	h.clients[events] = struct{}{}
	h.mutex.Unlock()
	defer func() {
		h.mutex.Lock()
		delete(h.clients, events)
		h.mutex.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	flusher.Flush()
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case event := <-events:
			if _, err := io.WriteString(w, event); err != nil {
				return
			}
		case <-ticker.C:
			if _, err := io.WriteString(w, ": heartbeat\n\n"); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
		flusher.Flush()
	}
}

func (h *hub) publish(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mutex.Lock()
	h.newest++
	event := fmt.Sprintf("id: %d\ndata: %s\n\n", h.newest, data)
	for events := range h.clients {
		select {
		case events <- event:
		default: // a client that is too slow misses the event
		}
	}
	h.mutex.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func main() {
	h := &hub{clients: make(map[chan string]struct{})}
	http.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			h.publish(w, r)
		} else {
			h.subscribe(w, r)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("http://" + listener.Addr().String())
	log.Fatal(http.Serve(listener, nil))
}
