package crowd_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// The server turns bad while 200 logins of two sites are on their way, and the configuration is loaded anew meanwhile.
func TestOfThoseInFlightHardlyAnybodyIsToldARejection(t *testing.T) {
	const atOnce = 200
	for name, options := range map[string]string{"as by default": "", "with nothing remembered": "replay off\nremember_rejected off\nfailed_logins off"} {
		t.Run(name, func(t *testing.T) {
			var bad atomic.Bool
			var arrived atomic.Int32
			answered := make(chan struct{})
			answer := sync.OnceFunc(func() { close(answered) })
			defer answer()
			endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				if !bad.Load() {
					caddytest.IssuesTokens(w, r)
					return
				}
				arrived.Add(1)
				<-answered
				caddytest.Says(http.StatusBadRequest, `{"error":"invalid_grant"}`)(w, r)
			})
			old := caddytest.OldService(t)
			sites := []*caddytest.Site{{URL: "http://" + loopback.FreeAddress()}, {URL: "http://" + loopback.FreeAddress()}}
			config := func(n int) string {
				text := "{\nadmin off\npersist_config off\ngrace_period 30s\n}\n"
				for _, s := range sites {
					text += fmt.Sprintf("%s {\nbind 127.0.0.1\nheader X-Config %d\n%s\n}\n", s.URL, n,
						caddytest.Directive(endpoint, old, fmt.Sprint("max_in_flight ", atOnce), options))
				}
				return text
			}
			caddytest.Run(t, "respond ok") // which ends it all
			caddytest.Load(t, config(0))
			told := func(name string, i int) string {
				c := caddytest.Player(t)
				a, err := caddytest.Ask(t, c, sites[i%2], caddytest.Tries(t, fmt.Sprint(name, i), "right", fmt.Sprint("Sonos_", i)))
				if err != nil {
					t.Error(err)
					return "?"
				}
				return caddytest.Told(t, a)
			}
			for i := range 40 {
				if is := told("before", i); is != "upgraded" {
					t.Fatalf("before it: %s", is)
				}
			}
			bad.Store(true)
			var all sync.WaitGroup
			var blank atomic.Int32
			for i := range atOnce {
				all.Go(func() {
					if told("home", i) == "blank" {
						blank.Add(1)
					}
				})
			}
			caddytest.Eventually(t, "all are on their way", func() bool { return arrived.Load() == atOnce })
			loaded := make(chan struct{})
			go func() { caddytest.Load(t, config(1)); close(loaded) }() // which waits for them
			caddytest.Eventually(t, "the new configuration answers", func() bool {
				response, err := http.Get(sites[1].URL)
				if err != nil {
					return false
				}
				defer response.Body.Close()
				return response.Header.Get("X-Config") == "1"
			})
			answer()
			all.Wait()
			<-loaded
			for i := range 20 {
				if is := told("after", i); is != "unavailable" {
					t.Errorf("after it: %s", is)
				}
			}
			if n := blank.Load(); n == 0 || n > 20 {
				t.Errorf("%d of %d homes are told a rejection", n, atOnce)
			}
		})
	}
}
