package legacy

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// serve answers a request by way of an Answer.
func serve(t *testing.T, handle func(w *Answer)) *http.Response {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Server", "us")
		handle(NewAnswer(w))
	}))
	t.Cleanup(s.Close)
	got, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { got.Body.Close() })
	return got
}

func TestAnAnswerThatIsNoFaultStreams(t *testing.T) {
	next := make(chan bool)
	got := serve(t, func(w *Answer) {
		w.Header().Set("Trailer", "X-End")
		w.Header().Set("X-Old", "1")
		_, _ = io.WriteString(w, "first")
		w.Flush()
		<-next
		_, _ = io.WriteString(w, " second")
		w.Header().Set("X-End", "end")
		if w.Held() {
			t.Error("it is held back")
		}
	})
	first := make([]byte, len("first"))
	if _, err := io.ReadFull(got.Body, first); err != nil {
		t.Fatal(err)
	}
	close(next)
	rest, err := io.ReadAll(got.Body)
	if err != nil || string(first)+string(rest) != "first second" || got.Header.Get("X-Old") != "1" ||
		got.Header.Get("Server") != "us" || got.Trailer.Get("X-End") != "end" {
		t.Errorf("%v, %q%q, %v, %v", err, first, rest, got.Header, got.Trailer)
	}
}

func TestAFaultThatIsWithdrawnLeavesNoTrace(t *testing.T) {
	got := serve(t, func(w *Answer) {
		w.Header().Set("X-Old", "1")
		w.Header()["Server"][0] = "them"
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "fault")
		w.Flush()
		if !w.Held() || string(w.Text()) != "fault" {
			t.Errorf("%v, %q", w.Held(), w.Text())
		}
		w.Withdraw()
		again := NewAnswer(w.Unwrap())
		again.Header().Set("X-New", "1")
		_, _ = io.WriteString(again, "well")
	})
	body, _ := io.ReadAll(got.Body)
	if got.StatusCode != 200 || string(body) != "well" || got.Header.Get("X-Old") != "" || got.Header.Get("X-New") != "1" ||
		got.Header.Get("Server") != "us" {
		t.Errorf("%d, %q, %v", got.StatusCode, body, got.Header)
	}
}

func TestAFaultThatIsReleasedIsAsItCame(t *testing.T) {
	for name, size := range map[string]int{"short": 100, "as long as is held": MaxHeld, "longer than is held": 3 * MaxHeld} {
		text := strings.Repeat("x", size)
		got := serve(t, func(w *Answer) {
			w.Header().Set("X-Old", "1")
			w.WriteHeader(http.StatusInternalServerError)
			for rest := text; rest != ""; {
				n := min(1000, len(rest))
				_, _ = io.WriteString(w, rest[:n])
				rest = rest[n:]
			}
			if w.Held() != (size <= MaxHeld) {
				t.Errorf("%s: held is %v", name, w.Held())
			}
			if err := w.Release(); err != nil {
				t.Error(err)
			}
		})
		body, err := io.ReadAll(got.Body)
		if err != nil || got.StatusCode != 500 || string(body) != text || got.Header.Get("X-Old") != "1" {
			t.Errorf("%s: %v, %d, %d bytes, %v", name, err, got.StatusCode, len(body), got.Header)
		}
	}
}

func TestAnInformationalAnswerGoesOnAndLeavesNoTrace(t *testing.T) {
	got := serve(t, func(w *Answer) {
		w.Header().Set("Link", "early")
		w.WriteHeader(http.StatusEarlyHints)
		clear(w.Header())
		w.WriteHeader(http.StatusNoContent)
	})
	if got.StatusCode != http.StatusNoContent || got.Header.Get("Link") != "" {
		t.Errorf("%d, %v", got.StatusCode, got.Header)
	}
}

func TestADeflatedFaultIsReadWithItsFrameAndWithout(t *testing.T) {
	var framed, bare bytes.Buffer
	z := zlib.NewWriter(&framed)
	_, _ = io.WriteString(z, "fault")
	_ = z.Close()
	f, _ := flate.NewWriter(&bare, flate.BestSpeed)
	_, _ = io.WriteString(f, "fault")
	_ = f.Close()
	for _, body := range []string{framed.String(), bare.String()} {
		a := NewAnswer(httptest.NewRecorder())
		a.Header().Set("Content-Encoding", "deflate")
		a.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(a, body)
		if got := string(a.Text()); got != "fault" {
			t.Errorf("%q: %q", body, got)
		}
	}
}

func TestAGzippedFaultIsReadAndGoesOnGzipped(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "fault")
	_ = z.Close()
	for coding, want := range map[string]string{"gzip": "fault", "GZIP": "fault", "x-gzip": "fault", "br": "", "identity": zipped.String()} {
		w := httptest.NewRecorder()
		a := NewAnswer(w)
		a.Header().Set("Content-Encoding", coding)
		a.WriteHeader(http.StatusInternalServerError)
		_, _ = a.Write(zipped.Bytes())
		if got := string(a.Text()); got != want {
			t.Errorf("%s: %q", coding, got)
		}
		if err := a.Release(); err != nil || !bytes.Equal(w.Body.Bytes(), zipped.Bytes()) {
			t.Errorf("%s: %v, %q", coding, err, w.Body)
		}
	}
	w := httptest.NewRecorder()
	a := NewAnswer(w)
	a.Header().Set("Content-Encoding", "gzip")
	a.WriteHeader(http.StatusInternalServerError)
	z.Reset(a)
	_, _ = z.Write(make([]byte, 100*MaxHeld))
	_ = z.Close()
	if a.Text() != nil {
		t.Error("a bomb was read")
	}
}

func TestWhatOurOwnCallGetsIsBounded(t *testing.T) {
	r := NewRecorded(httptest.NewRecorder())
	r.WriteHeader(http.StatusEarlyHints)
	for range 3 {
		_, _ = r.Write(make([]byte, MaxHeld/2+1))
	}
	if r.Status != 200 || len(r.Body) != MaxHeld || !r.Long {
		t.Errorf("%d, %d bytes, %v", r.Status, len(r.Body), r.Long)
	}
}
