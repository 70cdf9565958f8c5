package crowd_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

const breakerChanged = "circuit breaker of the token endpoint changed"

// What strangers send slowly, and the site and the time that it is sent to.
var slowBodies = []struct {
	name          string
	timeout, ends time.Duration
	forwarded     int // at least, of 240; on a slow machine some are begun to be read late
}{
	{"at the deadline", 4 * time.Second, 4 * time.Second, 120},
	{"100 ms before the deadline", 4 * time.Second, 3900 * time.Millisecond, 120},
	{"as late as a call may be whole", 3 * time.Second, 2800 * time.Millisecond, 0},
}

func TestStrangersWithSlowBodiesAreInNobodysWay(t *testing.T) {
	t.Parallel()
	var failed atomic.Int32
	judge := caddytest.Passwords(&failed)
	endpoint := func() *caddytest.Server {
		return caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.PostFormValue("username"), "slow") {
				select { // longer than a call has that late
				case <-r.Context().Done():
				case <-time.After(time.Second):
				}
			}
			judge(w, r)
		})
	}
	var olds []*caddytest.Server
	text := "respond ok\n}\n"
	var slowly, usually []string // sites of the same endpoint; listeners have the usual time, on a slow machine too
	for _, slow := range slowBodies {
		old, at := caddytest.OldService(t), endpoint()
		olds, slowly, usually = append(olds, old), append(slowly, loopback.FreeAddress()), append(usually, loopback.FreeAddress())
		for address, timeout := range map[string]time.Duration{slowly[len(slowly)-1]: slow.timeout, usually[len(usually)-1]: 15 * time.Second} {
			text += fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}\n", address,
				caddytest.Directive(at, old, "refresh_auth_tokens", "timeout "+timeout.String()))
		}
	}
	s := caddytest.Apart(t, strings.TrimSuffix(text, "}\n"))
	var all sync.WaitGroup
	for i, slow := range slowBodies {
		all.Go(func() {
			l := &listeners{Site: &caddytest.Site{URL: "http://" + usually[i]}}
			l.upgrade(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				sendSlowly(t, slowly[i], slow.ends, slow.forwarded, olds[i])
			}()
			l.upgradeUntil(t, done)
			for range 20 {
				l.upgrade(t)
			}
			t.Logf("%s: %d listeners were upgraded and refreshed", slow.name, l.come.Load())
		})
	}
	all.Wait()
	if strings.Contains(s.Log(t), breakerChanged) {
		t.Error("the breaker has changed")
	}
}

// sendSlowly sends 240 calls whose last byte comes that late.
func sendSlowly(t *testing.T, address string, ends time.Duration, forwarded int, old *caddytest.Server) {
	var sent sync.Map
	var all sync.WaitGroup
	for i := range 240 {
		all.Go(func() {
			body := caddytest.Tries(t, fmt.Sprint("slow", i), "wrong", "home")
			body = append(body, bytes.Repeat([]byte(" "), max(0, 600-len(body)))...)
			body = append(body, '\n')
			sent.Store(string(body), true)
			conn, err := caddytest.Dialer("127.1.0.1").DialContext(context.Background(), "tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /smapi HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s", address, len(body), body[:len(body)-1])
			time.Sleep(ends) // what the stranger does
			_, _ = conn.Write(body[len(body)-1:])
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Error(err)
				return
			}
			if a, _ := caddytest.Read(response); a.Status != http.StatusTeapot && caddytest.Told(t, a) == "upgraded" {
				t.Error("a wrong password is upgraded")
			}
		})
	}
	all.Wait()
	received := old.Asked()
	if len(received) < forwarded {
		t.Errorf("%d of 240 slow bodies were forwarded", len(received))
	}
	for _, r := range received {
		if _, was := sent.Load(r.Text); !was {
			t.Errorf("forwarded as %q", r.Text)
		}
	}
}

// What is dear to read is forwarded, and costs the others nothing. What it costs is the reader's tests'.
func TestStrangersWithDearXMLAreForwarded(t *testing.T) {
	var failed atomic.Int32
	old := caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, caddytest.Passwords(&failed)), old, "refresh_auth_tokens"))
	var bindings, attributes strings.Builder
	for i := range 496 {
		fmt.Fprintf(&bindings, ` xmlns:p%d="u%d"`, i, i)
	}
	for i := range 3500 {
		fmt.Fprintf(&attributes, ` p%d:a=""`, i%496)
	}
	sample := string(caddytest.Tries(t, "dear", "wrong", "home"))
	bodies := []string{
		strings.Replace(sample, "<ns:credentials>", "<ns:credentials"+bindings.String()+"><ns:x"+attributes.String()+"/>", 1),
		strings.Replace(sample, "<ns:credentials>", strings.Repeat("<ns:x>", 5000)+"<ns:credentials>", 1),
		strings.Replace(sample, "wrong", strings.Repeat("&amp;", 8000), 1),
		strings.Replace(sample, "<soapenv:Envelope", `<!DOCTYPE a [<!ENTITY b "`+strings.Repeat("&c;", 8000)+`">]><soapenv:Envelope`, 1),
	}
	l := &listeners{Site: s}
	l.upgrade(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			for _, body := range bodies {
				if a, err := caddytest.Ask(t, caddytest.From(t, "127.1.0.1"), s, []byte(body)); err != nil || a.Status != http.StatusTeapot {
					t.Errorf("%.300s... gets %+v, %v", body, a, err)
				}
			}
		}
	}()
	l.upgradeUntil(t, done)
	l.upgrade(t)
	for _, r := range old.Asked() {
		if !slices.Contains(bodies, r.Text) {
			t.Errorf("forwarded as %.300q", r.Text)
		}
	}
	if failed.Load() != 0 {
		t.Errorf("%d were asked for", failed.Load())
	}
}

func TestStrangersCredentialsAreNoLongerThanTokens(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	s := caddytest.Run(t, caddytest.Directive(endpoint, old, "refresh_auth_tokens", "exchange login", "exchange session_id {\nparam s {smapi.session_id}\n}",
		"exchange login_token {\nparam t {smapi.token}\nparam k {smapi.key}\n}"))
	for _, test := range []struct{ method, file, credential string }{
		{"getDeviceAuthToken", "upgrade.xml", ">testuser<"},
		{"getDeviceAuthToken", "upgrade.xml", ">12345<"},
		{"getDeviceAuthToken", "session-id.xml", ">old-session<"},
		{"getDeviceAuthToken", "login-token.xml", ">old-token<"},
		{"getDeviceAuthToken", "login-token.xml", ">old-key<"},
		{"refreshAuthToken", "refresh-auth-token.xml", ">old-token<"},
		{"refreshAuthToken", "refresh-auth-token.xml", ">old-key<"},
	} {
		for _, long := range []bool{false, true} {
			letter, status := "x", http.StatusOK
			if test.file == "upgrade.xml" {
				letter = "ü" // characters and not bytes
			}
			credential := strings.Repeat(letter, 2048)
			if long {
				credential, status = credential+"x", http.StatusTeapot
			}
			content := string(caddytest.File(t, "requests", test.file))
			body := strings.Replace(content, test.credential, ">"+credential+"<", 1)
			if body == content {
				t.Fatalf("%s has no %s", test.file, test.credential)
			}
			r := s.Request(t, []byte(body))
			r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+test.method+`"`)
			a := s.Do(t, r)
			if a.Status != status || (len(endpoint.Asked()) == 1) == long {
				t.Errorf("%s in %s, too long: %t: %.300v", test.credential, test.file, long, a)
			}
			for _, forwarded := range old.Asked() {
				if forwarded.Text != body {
					t.Errorf("forwarded as %.300q", forwarded.Text)
				}
			}
		}
	}
}

// Each fat call holds half a MiB while it waits, by 64 parameters.
func TestStrangersFatCallsFillABoundedQueue(t *testing.T) {
	endpoint, arrived, proceed := caddytest.Hanging(t)
	defer proceed()
	exchange := "exchange login {\n"
	for i := range 64 {
		exchange += fmt.Sprintf("param p%d {smapi.password}\n", i)
	}
	o := caddytest.Operate(t, caddytest.Directive(endpoint, caddytest.OldService(t), "max_in_flight 1", "refresh_auth_tokens", exchange+"}"))
	fat := strings.Repeat("\U0001F3B5", 2048)
	stranger := caddytest.From(t, "127.1.0.1")
	ctx, leave := context.WithCancel(t.Context())
	var turnedAway atomic.Int32
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			a, err := caddytest.Fetch(stranger, o.Request(t, caddytest.Tries(t, fmt.Sprint("fat", i), fat, "home")).WithContext(ctx))
			if err == nil && caddytest.Told(t, a) == "unavailable" {
				turnedAway.Add(1)
			}
		})
	}
	<-arrived
	caddytest.Eventually(t, "the queue is full", func() bool {
		return int(turnedAway.Load())+caddytest.OnlyEndpoint(t, o).Waiting == 199
	})
	if waiting := caddytest.OnlyEndpoint(t, o).Waiting; waiting < 100 || waiting > 128 { // of 64 MiB in all
		t.Errorf("%d fat calls wait", waiting)
	}
	leave()
	all.Wait()
	caddytest.Eventually(t, "the queue is empty", func() bool { return caddytest.OnlyEndpoint(t, o).Waiting == 0 })
	proceed()
	l := &listeners{Site: o.Site}
	l.upgrade(t)
}

// Refreshes that may yet be forwarded hold their bodies, also those that wait for another one of the same key.
func TestStrangersFatRefreshesOfOneKeyHoldABoundedMemory(t *testing.T) {
	const fat, calls = 60 << 10, 1000
	endpoint, arrived, proceed := caddytest.Hanging(t)
	defer proceed()
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t), "households 0%", "refresh_auth_tokens"))
	padding := "<ns:credentials><ns:padding>" + strings.Repeat("x", fat) + "</ns:padding>"
	body := strings.Replace(string(caddytest.File(t, "requests", "refresh-auth-token.xml")), "<ns:credentials>", padding, 1)
	if len(body) < fat {
		t.Fatal("not fat")
	}
	stranger := caddytest.From(t, "127.1.0.1")
	var turnedAway atomic.Int32
	ctx, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			r := s.Refreshes(t, "key")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			if a, err := caddytest.Fetch(stranger, r.WithContext(ctx)); err == nil && caddytest.Told(t, a) == "unavailable" {
				turnedAway.Add(1)
			}
		})
	}
	<-arrived
	const room = 48 << 20 / fat // of 64 MiB, of which the last quarter takes only smaller ones
	caddytest.Eventually(t, "the rest is turned away", func() bool { return turnedAway.Load() >= calls-room-room/10 })
	small := make(chan caddytest.Answer)
	go func() {
		a, _ := caddytest.Fetch(caddytest.From(t, "127.2.0.1"), s.Refreshes(t, "another"))
		small <- a
	}()
	caddytest.Eventually(t, "the small one is asked for", func() bool {
		return slices.ContainsFunc(endpoint.Asked(), func(r caddytest.Received) bool { return strings.Contains(r.Text, "another") })
	})
	proceed()
	if a := <-small; !strings.Contains(a.Body, "<authToken>new-token<") {
		t.Errorf("a small one gets %+v", a)
	}
	leave()
	all.Wait()
}
