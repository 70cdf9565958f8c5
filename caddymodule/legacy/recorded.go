package legacy

import (
	"net/http"
	"slices"
)

// Recorded is a ResponseWriter that keeps an answer to a call of our own, in memory. NewRecorded makes one.
type Recorded struct {
	Status int // 0 where there was none
	Body   []byte
	Long   bool // it had more than MaxHeld, and the rest is lost

	header http.Header
}

// NewRecorded returns an empty one of what else would answer w.
func NewRecorded(of http.ResponseWriter) *Recorded {
	r := &Recorded{header: make(http.Header)}
	if values, ok := of.Header()[server]; ok { // which a proxy takes away
		r.header[server] = slices.Clone(values)
	}
	return r
}

const server = "Server"

// Header is that of the answer.
func (r *Recorded) Header() http.Header { return r.header }

// WriteHeader keeps the status.
func (r *Recorded) WriteHeader(status int) {
	if r.Status == 0 && (status < 100 || status >= 200) {
		r.Status = status
	}
}

func (r *Recorded) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	room := MaxHeld - len(r.Body)
	r.Long = r.Long || len(p) > room
	r.Body = append(r.Body, p[:min(room, len(p))]...)
	return len(p), nil
}

// Flush has nothing to do.
func (r *Recorded) Flush() {}

// CopyTo answers w with it.
func (r *Recorded) CopyTo(w http.ResponseWriter) error {
	delete(w.Header(), server)
	for name, values := range r.header {
		w.Header()[name] = append(w.Header()[name], values...) // its own, since handlers in front may change them
	}
	if r.Long {
		delete(w.Header(), "Content-Length")
	}
	w.WriteHeader(r.Status)
	if r.Long {
		return nil
	}
	_, err := w.Write(r.Body)
	return err
}
