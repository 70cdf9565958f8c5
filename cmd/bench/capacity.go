package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Wave is what became of so many accounts that ask for their upgrade at once, and ask again after five seconds
// when they are turned away.
type Wave struct {
	Accounts        int     `json:"accounts"`
	Protocol        string  `json:"protocol"`
	LoginsPerSecond int     `json:"logins_per_second"`
	Seconds         float64 `json:"seconds"` // until all are upgraded
	TurnedAway      int     `json:"turned_away"`
	CPU             float64 `json:"cpu_seconds"`
	Memory          float64 `json:"peak_mib"`
}

// inFlight is the handler's default of max_in_flight.
const inFlight = 64

func measureWaves() (waves []Wave, err error) {
	for _, w := range []Wave{
		{Accounts: 1000, LoginsPerSecond: 100, Protocol: "HTTP/1.1"},
		{Accounts: 10000, LoginsPerSecond: 1000, Protocol: "HTTP/1.1"},
		{Accounts: 10000, LoginsPerSecond: 400, Protocol: "HTTP/1.1"},
		{Accounts: 50000, LoginsPerSecond: 2000, Protocol: "HTTP/2"},
	} {
		progress("%d accounts, %d logins/s", w.Accounts, w.LoginsPerSecond)
		if err := w.measure(); err != nil {
			return nil, fmt.Errorf("%d accounts: %w", w.Accounts, err)
		}
		waves = append(waves, w)
	}
	progress("")
	return waves, nil
}

func (w *Wave) measure() error {
	h, err := newHouse()
	if err != nil {
		return err
	}
	defer h.close()
	places := make(chan struct{}, inFlight)
	each := time.Second * inFlight / time.Duration(w.LoginsPerSecond)
	endpoint, address, err := serve(func(out http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		places <- struct{}{}
		time.Sleep(each)
		<-places
		_, _ = io.WriteString(out, tokens)
	})
	if err != nil {
		return err
	}
	defer endpoint.Close()
	caddy, err := h.launch("off", fmt.Sprintf("\nhttp://%s {\nbind 127.0.0.1\nsmapi_upgrade http://%s/token {\nclient_id id\nclient_auth none\n}\n}",
		h.withAddr, address), h.withAddr)
	if err != nil {
		return err
	}
	defer caddy.stop()

	transport := &http.Transport{MaxIdleConnsPerHost: w.Accounts, DisableCompression: true}
	if w.Protocol == "HTTP/2" {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	defer transport.CloseIdleConnections()
	upgrade := envelope("<ns:getDeviceAuthToken><ns:householdId>Sonos_abc123</ns:householdId></ns:getDeviceAuthToken>")
	start := time.Now()
	var turnedAway atomic.Int64
	var players sync.WaitGroup
	failures := make([]error, w.Accounts)
	for i := range w.Accounts {
		players.Go(func() {
			call := strings.Replace(upgrade, account, fmt.Sprintf("user%010d", i), 1)
			for time.Since(start) < 2*time.Minute {
				upgraded, err := w.ask(transport, h.withAddr, call)
				if upgraded {
					return
				}
				failures[i] = err
				turnedAway.Add(1)
				time.Sleep(5 * time.Second)
			}
			failures[i] = fmt.Errorf("not upgraded in time: %w", failures[i])
		})
	}
	players.Wait()
	w.Seconds, w.TurnedAway = time.Since(start).Seconds(), int(turnedAway.Load())
	if w.Seconds > 120 {
		for _, err := range failures {
			if err != nil {
				return err
			}
		}
	}
	cpu, err := cpuTime(caddy.command.Process.Pid)
	if err != nil {
		return err
	}
	w.CPU = cpu.Seconds()
	w.Memory, err = peakMemory(caddy.command.Process.Pid)
	return err
}

func (w *Wave) ask(transport http.RoundTripper, address, call string) (upgraded bool, err error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+address+"/smapi", strings.NewReader(call))
	if err != nil {
		return false, err
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return strings.Contains(string(text), "<authToken>"+token), err
}
