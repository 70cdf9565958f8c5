package caddymodule_test

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
	var failed atomic.Int32
	judge := passwords(&failed)
	endpoint := func() *server {
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.PostFormValue("username"), "slow") {
				select { // longer than a call has that late
				case <-r.Context().Done():
				case <-time.After(time.Second):
				}
			}
			judge(w, r)
		})
	}
	var olds []*server
	text := "respond ok\n}\n"
	var slowly, usually []string // sites of the same endpoint; listeners have the usual time, on a slow machine too
	for _, slow := range slowBodies {
		old, at := oldService(t), endpoint()
		olds, slowly, usually = append(olds, old), append(slowly, loopback.FreeAddress()), append(usually, loopback.FreeAddress())
		for address, timeout := range map[string]time.Duration{slowly[len(slowly)-1]: slow.timeout, usually[len(usually)-1]: 15 * time.Second} {
			text += fmt.Sprintf("http://%s {\nbind 127.0.0.1\n%s\n}\n", address,
				directive(at, old, "refresh_auth_tokens", "timeout "+timeout.String()))
		}
	}
	s := caddyRun(t, strings.TrimSuffix(text, "}\n"))
	var all sync.WaitGroup
	for i, slow := range slowBodies {
		all.Go(func() {
			l := &listeners{site: &site{url: "http://" + usually[i]}}
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
	if strings.Contains(s.log(t), breakerChanged) {
		t.Error("the breaker has changed")
	}
}

// sendSlowly sends 240 calls whose last byte comes that late.
func sendSlowly(t *testing.T, address string, ends time.Duration, forwarded int, old *server) {
	var sent sync.Map
	var all sync.WaitGroup
	for i := range 240 {
		all.Go(func() {
			body := tries(t, fmt.Sprint("slow", i), "wrong", "home")
			body = append(body, bytes.Repeat([]byte(" "), max(0, 600-len(body)))...)
			body = append(body, '\n')
			sent.Store(string(body), true)
			conn, err := dialer("127.1.0.1").DialContext(context.Background(), "tcp", address)
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
			defer response.Body.Close()
			content, _ := io.ReadAll(response.Body)
			if response.StatusCode != http.StatusTeapot && told(t, answer{response.StatusCode, response.Header, string(content)}) == "upgraded" {
				t.Error("a wrong password is upgraded")
			}
		})
	}
	all.Wait()
	received := old.asked()
	if len(received) < forwarded {
		t.Errorf("%d of 240 slow bodies were forwarded", len(received))
	}
	for _, r := range received {
		if _, was := sent.Load(r.body); !was {
			t.Errorf("forwarded as %q", r.body)
		}
	}
}

// What is dear to read is forwarded, and costs the others nothing. What it costs is the reader's tests'.
func TestStrangersWithDearXMLAreForwarded(t *testing.T) {
	var failed atomic.Int32
	old := oldService(t)
	s := caddyRun(t, directive(serve(t, passwords(&failed)), old, "refresh_auth_tokens"))
	var bindings, attributes strings.Builder
	for i := range 496 {
		fmt.Fprintf(&bindings, ` xmlns:p%d="u%d"`, i, i)
	}
	for i := range 3500 {
		fmt.Fprintf(&attributes, ` p%d:a=""`, i%496)
	}
	sample := string(tries(t, "dear", "wrong", "home"))
	bodies := []string{
		strings.Replace(sample, "<ns:credentials>", "<ns:credentials"+bindings.String()+"><ns:x"+attributes.String()+"/>", 1),
		strings.Replace(sample, "<ns:credentials>", strings.Repeat("<ns:x>", 5000)+"<ns:credentials>", 1),
		strings.Replace(sample, "wrong", strings.Repeat("&amp;", 8000), 1),
		strings.Replace(sample, "<soapenv:Envelope", `<!DOCTYPE a [<!ENTITY b "`+strings.Repeat("&c;", 8000)+`">]><soapenv:Envelope`, 1),
	}
	l := &listeners{site: s}
	l.upgrade(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			for _, body := range bodies {
				if a, err := ask(t, from(t, "127.1.0.1"), s, []byte(body)); err != nil || a.status != http.StatusTeapot {
					t.Errorf("%.300s... gets %+v, %v", body, a, err)
				}
			}
		}
	}()
	l.upgradeUntil(t, done)
	l.upgrade(t)
	for _, r := range old.asked() {
		if !slices.Contains(bodies, r.body) {
			t.Errorf("forwarded as %.300q", r.body)
		}
	}
	if failed.Load() != 0 {
		t.Errorf("%d were asked for", failed.Load())
	}
}

func TestStrangersCredentialsAreNoLongerThanTokens(t *testing.T) {
	endpoint, old := serve(t, issuesTokens), oldService(t)
	s := caddyRun(t, directive(endpoint, old, "refresh_auth_tokens", "exchange login", "exchange session_id {\nparam s {smapi.session_id}\n}",
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
			content := string(file(t, "requests", test.file))
			body := strings.Replace(content, test.credential, ">"+credential+"<", 1)
			if body == content {
				t.Fatalf("%s has no %s", test.file, test.credential)
			}
			r := s.request(t, []byte(body))
			r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+test.method+`"`)
			a := s.do(t, r)
			if a.status != status || (len(endpoint.asked()) == 1) == long {
				t.Errorf("%s in %s, too long: %t: %.300v", test.credential, test.file, long, a)
			}
			for _, forwarded := range old.asked() {
				if forwarded.body != body {
					t.Errorf("forwarded as %.300q", forwarded.body)
				}
			}
		}
	}
}

// Each fat call holds half a MiB while it waits, by 64 parameters.
func TestStrangersFatCallsFillABoundedQueue(t *testing.T) {
	endpoint, arrived, proceed := hanging(t)
	defer proceed()
	exchange := "exchange login {\n"
	for i := range 64 {
		exchange += fmt.Sprintf("param p%d {smapi.password}\n", i)
	}
	o := operate(t, directive(endpoint, oldService(t), "max_in_flight 1", "refresh_auth_tokens", exchange+"}"))
	fat := strings.Repeat("\U0001F3B5", 2048)
	stranger := from(t, "127.1.0.1")
	ctx, leave := context.WithCancel(t.Context())
	var turnedAway atomic.Int32
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			a, err := fetch(stranger, o.request(t, tries(t, fmt.Sprint("fat", i), fat, "home")).WithContext(ctx))
			if err == nil && told(t, a) == "unavailable" {
				turnedAway.Add(1)
			}
		})
	}
	<-arrived
	eventually(t, "the queue is full", func() bool {
		return int(turnedAway.Load())+onlyEndpoint(t, o).Waiting == 199
	})
	if waiting := onlyEndpoint(t, o).Waiting; waiting < 100 || waiting > 128 { // of 64 MiB in all
		t.Errorf("%d fat calls wait", waiting)
	}
	leave()
	all.Wait()
	eventually(t, "the queue is empty", func() bool { return onlyEndpoint(t, o).Waiting == 0 })
	proceed()
	l := &listeners{site: o.site}
	l.upgrade(t)
}

// Refreshes that may yet be forwarded hold their bodies, also those that wait for another one of the same key.
func TestStrangersFatRefreshesOfOneKeyHoldABoundedMemory(t *testing.T) {
	const fat, calls = 60 << 10, 1000
	endpoint, arrived, proceed := hanging(t)
	defer proceed()
	s := caddyRun(t, directive(endpoint, oldService(t), "households 0%", "refresh_auth_tokens"))
	padding := "<ns:credentials><ns:padding>" + strings.Repeat("x", fat) + "</ns:padding>"
	body := strings.Replace(string(file(t, "requests", "refresh-auth-token.xml")), "<ns:credentials>", padding, 1)
	if len(body) < fat {
		t.Fatal("not fat")
	}
	stranger := from(t, "127.1.0.1")
	var turnedAway atomic.Int32
	ctx, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			r := s.refreshes(t, "key")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			if a, err := fetch(stranger, r.WithContext(ctx)); err == nil && told(t, a) == "unavailable" {
				turnedAway.Add(1)
			}
		})
	}
	<-arrived
	const room = 48 << 20 / fat // of 64 MiB, of which the last quarter takes only smaller ones
	eventually(t, "the rest is turned away", func() bool { return turnedAway.Load() >= calls-room-room/10 })
	small := make(chan answer)
	go func() {
		a, _ := fetch(from(t, "127.2.0.1"), s.refreshes(t, "another"))
		small <- a
	}()
	eventually(t, "the small one is asked for", func() bool {
		return slices.ContainsFunc(endpoint.asked(), func(r received) bool { return strings.Contains(r.body, "another") })
	})
	proceed()
	if a := <-small; !strings.Contains(a.body, "<authToken>new-token<") {
		t.Errorf("a small one gets %+v", a)
	}
	leave()
	all.Wait()
}
