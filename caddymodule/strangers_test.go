package caddymodule_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// from is a client in a loopback network of its own.
func from(t testing.TB, ip string) *http.Client {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// tries is the upgrade call of an account with a password in a home.
func tries(t testing.TB, name, password, home string) []byte {
	t.Helper()
	sample := string(file(t, "requests", "upgrade.xml"))
	return []byte(strings.NewReplacer("testuser", name, "12345", password, "Sonos_abc123", home).Replace(sample))
}

// passwords is a token endpoint where every account's password is "right", and the failed logins at it.
func passwords(failed *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("password") == "right" {
			issuesTokens(w, r)
			return
		}
		failed.Add(1)
		says(http.StatusBadRequest, `{"error":"invalid_grant"}`)(w, r)
	}
}

func TestStrangersCannotLockAnAccount(t *testing.T) {
	var failed atomic.Int32
	s := caddyRun(t, directive(serve(t, passwords(&failed)), oldService(t)))
	stranger, owner := from(t, "127.1.0.1"), from(t, "127.2.0.1")
	get := func(c *http.Client, body []byte) answer {
		t.Helper()
		a, err := ask(t, c, s, body)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for home := range 20 { // the same wrong password from made-up homes
		get(stranger, tries(t, "ella", "wrong", "home"+strconv.Itoa(home)))
	}
	if n := failed.Load(); n != 1 {
		t.Errorf("the same password from 20 homes was %d failed logins", n)
	}
	spellings := []string{"ella", "ELLA", "Ella", " ella ", "ｅｌｌａ"}
	for i := range 100 {
		checkNoBlankPairOfGuarded(t, get(stranger, tries(t, spellings[i%len(spellings)], strconv.Itoa(i), "home")))
	}
	if n := failed.Load(); n != 3 {
		t.Errorf("guesses were %d failed logins, of 4", n)
	}
	checkAnswer(t, get(stranger, tries(t, "ella", "right", "home")), "service-unavailable.xml")
	checkAnswer(t, get(owner, tries(t, "ella", "right", "home")), "upgraded.xml")
	checkAnswer(t, get(stranger, tries(t, "django", "right", "home")), "upgraded.xml")
}

// checkNoBlankPairOfGuarded sees that an answer is a rejection of the endpoint's or a fault that can be taken back.
func checkNoBlankPairOfGuarded(t *testing.T, a answer) {
	t.Helper()
	if a.status == http.StatusInternalServerError && !strings.Contains(a.body, "Server.ServiceUnavailable") {
		t.Errorf("a guess gets %s", a.body)
	}
}

// Bodies whose last byte comes when the call has no time left.
func TestSlowBodiesAreInNobodysWay(t *testing.T) {
	var failed atomic.Int32
	old := oldService(t)
	s := caddyRun(t, directive(serve(t, passwords(&failed)), old, "timeout 5s"))
	host := strings.TrimPrefix(s.url, "http://")
	var slow sync.WaitGroup
	begun := make(chan struct{}, 240)
	for i := range 240 {
		slow.Go(func() {
			body := tries(t, "slow"+strconv.Itoa(i), "wrong", "home")
			conn, err := net.Dial("tcp", host)
			if err != nil {
				begun <- struct{}{}
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /smapi HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s", host, len(body), body[:len(body)-1])
			begun <- struct{}{}
			time.Sleep(4900 * time.Millisecond) // what the stranger does
			_, _ = conn.Write(body[len(body)-1:])
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if content, _ := io.ReadAll(response.Body); response.Header.Get("X-Old") == "" && !strings.Contains(string(content), "old service") {
				t.Errorf("a body that was not whole in time gets %d %v %s", response.StatusCode, response.Header, content)
			}
		})
	}
	for range 240 {
		<-begun
	}
	during := make(chan struct{})
	go func() { slow.Wait(); close(during) }()
	served := 0
	for i := 0; ; i++ {
		select {
		case <-during:
			if failed.Load() != 0 || served == 0 {
				t.Errorf("%d were served, and %d slow bodies asked for", served, failed.Load())
			}
			for i := range 50 {
				checkAnswer(t, s.post(t, tries(t, "after"+strconv.Itoa(i), "right", "home")), "upgraded.xml")
			}
			return
		default:
			checkAnswer(t, s.post(t, tries(t, "good"+strconv.Itoa(i), "right", "home")), "upgraded.xml")
			served++
		}
	}
}

// Made-up accounts from one network keep the endpoint busy; the others are served before them.
func TestGuessersWaitBehindTheOthers(t *testing.T) {
	var failed atomic.Int32
	places := make(chan struct{}, 2)
	judge := passwords(&failed)
	endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) {
		places <- struct{}{}
		time.Sleep(20 * time.Millisecond) // what a login costs
		<-places
		judge(w, r)
	})
	s := caddyRun(t, directive(endpoint, oldService(t), "max_in_flight 2"))
	guesser := from(t, "127.1.0.1")
	stop := make(chan struct{})
	var guessing sync.WaitGroup
	for i := range 64 {
		guessing.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					_, _ = ask(t, guesser, s, tries(t, fmt.Sprintf("made-up-%d-%d", i, n), "wrong", "home"))
				}
			}
		})
	}
	for failed.Load() < 20 {
		time.Sleep(time.Millisecond) // until it is known for failing
	}
	before := failed.Load()
	for i := range 20 {
		a, err := ask(t, from(t, fmt.Sprintf("127.2.%d.1", i)), s, tries(t, "good"+strconv.Itoa(i), "right", "home"))
		if err != nil {
			t.Fatal(err)
		}
		checkAnswer(t, a, "upgraded.xml")
	}
	if passed := failed.Load() - before; passed > 20*8 { // without an order some 64 would pass before each
		t.Errorf("%d guesses passed before 20 good logins", passed)
	}
	close(stop)
	guessing.Wait()
}
