package legacy

import (
	"net/http"
)

// Recorded is a ResponseWriter that keeps an answer to a call of our own, in memory. NewRecorded makes one.
type Recorded struct {
	Status int // 0 where there was none
	Body   []byte
	Long   bool // it had more than MaxHeld, and the rest is lost

	header http.Header
}

// NewRecorded returns an empty one.
func NewRecorded() *Recorded { return &Recorded{header: make(http.Header)} }

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
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.WriteHeader(r.Status)
	_, err := w.Write(r.Body)
	return err
}
