package main

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
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
	CPUAround       float64 `json:"cpu_seconds_around"` // of the players and the token endpoint
	Memory          float64 `json:"peak_mib"`
}

// inFlight is the handler's default of max_in_flight.
const inFlight = 64

func measureWaves(only int, admin string) (waves []Wave, err error) {
	for i, w := range []Wave{
		{Accounts: 1000, LoginsPerSecond: 100, Protocol: http1},
		{Accounts: 10000, LoginsPerSecond: 1000, Protocol: http1},
		{Accounts: 10000, LoginsPerSecond: 400, Protocol: http1},
		{Accounts: 50000, LoginsPerSecond: 2000, Protocol: http2},
		{Accounts: 2000, LoginsPerSecond: 200, Protocol: tls12},
	} {
		if only != 0 && only != i+1 {
			continue
		}
		progress("%d accounts, %d logins/s", w.Accounts, w.LoginsPerSecond)
		if err := w.measure(admin); err != nil {
			return nil, fmt.Errorf("%d accounts: %w", w.Accounts, err)
		}
		waves = append(waves, w)
	}
	progress("")
	return waves, nil
}

func (w *Wave) measure(admin string) error {
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
	site, ca := "http://"+h.withAddr+" {", (*x509.CertPool)(nil)
	if w.Protocol == tls12 {
		var cert, key string
		if cert, key, ca, err = rsaCertificate(h.dir); err != nil {
			return err
		}
		site = fmt.Sprintf("https://%s {\ntls %s %s", h.withAddr, cert, key)
	}
	caddy, err := h.launch(admin, fmt.Sprintf("\n%s\nbind 127.0.0.1\nsmapi_upgrade http://%s/token {\nclient_id id\nclient_auth none\n}\n}",
		site, address), h.withAddr)
	if err != nil {
		return err
	}
	defer caddy.stop()
	all, err := newCrowd(w.Accounts, w.Protocol, h.withAddr, ca)
	if err != nil {
		return err
	}
	defer all.close()
	before, err := w.clocks(caddy)
	if err != nil {
		return err
	}

	start := time.Now()
	var turnedAway atomic.Int64
	var calls sync.WaitGroup
	failures := make([]error, w.Accounts)
	for i := range w.Accounts {
		calls.Go(func() {
			call := upgradeOf(i)
			for time.Since(start) < 2*time.Minute {
				answer, err := all.ask(i, "getDeviceAuthToken", call)
				if strings.Contains(answer, "<authToken>"+token) {
					return
				}
				failures[i] = err
				turnedAway.Add(1)
				time.Sleep(5 * time.Second)
			}
			failures[i] = fmt.Errorf("not upgraded in time: %w", failures[i])
		})
	}
	calls.Wait()
	w.Seconds, w.TurnedAway = time.Since(start).Seconds(), int(turnedAway.Load())
	if w.Seconds > 120 {
		for _, err := range failures {
			if err != nil {
				return err
			}
		}
	}
	after, err := w.clocks(caddy)
	if err != nil {
		return err
	}
	w.CPU, w.CPUAround = (after[0] - before[0]).Seconds(), (after[1] - before[1]).Seconds()
	w.Memory, err = memoryOf(caddy, peakMemory)
	return err
}

// clocks are the CPU times of the Caddy and of all that is around it.
func (w *Wave) clocks(caddy *process) (t [2]time.Duration, err error) {
	for i, pid := range []int{caddy.command.Process.Pid, os.Getpid()} {
		if t[i], err = cpuTime(pid); err != nil {
			return t, err
		}
	}
	return t, nil
}

// upgradeOf is the upgrade call of an account.
func upgradeOf(number int) string {
	call := envelope("<ns:getDeviceAuthToken><ns:householdId>Sonos_abc123</ns:householdId></ns:getDeviceAuthToken>")
	return strings.Replace(call, account, fmt.Sprintf("user%010d", number), 1)
}
