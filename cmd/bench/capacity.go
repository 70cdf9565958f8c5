package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/cmd/bench/crowd"
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

// loginsAtOnce is how many logins the token endpoint does at once. Others that are under way wait there, as at a server of so many cores:
// less than max_in_flight, so that it is not idle between an answer and the next request.
const loginsAtOnce = 16

func measureWaves(only int, admin string) (waves []Wave, err error) {
	for i, w := range []Wave{
		{Accounts: 1000, LoginsPerSecond: 100, Protocol: crowd.HTTP1},
		{Accounts: 10000, LoginsPerSecond: 1000, Protocol: crowd.HTTP1},
		{Accounts: 10000, LoginsPerSecond: 400, Protocol: crowd.HTTP1},
		{Accounts: 50000, LoginsPerSecond: 2000, Protocol: crowd.HTTP2},
		{Accounts: 2000, LoginsPerSecond: 200, Protocol: crowd.TLS12},
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
	endpoint, address, err := startEndpoint(time.Second * loginsAtOnce / time.Duration(w.LoginsPerSecond))
	if err != nil {
		return err
	}
	defer endpoint.stop()
	site, ca := "http://"+h.withAddr+" {", (*x509.CertPool)(nil)
	if w.Protocol == crowd.TLS12 {
		var cert, key string
		if cert, key, ca, err = crowd.RSACertificate(h.dir); err != nil {
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
	all, err := crowd.New(w.Accounts, w.Protocol, h.withAddr, ca)
	if err != nil {
		return err
	}
	defer all.Close()
	cpu, around, err := clocks(caddy, endpoint)
	if err != nil {
		return err
	}

	calls := make([]string, w.Accounts) // made before, because the players run on the cores of the node
	for i := range calls {
		calls[i] = upgradeOf(i)
	}
	start := time.Now()
	var turnedAway atomic.Int64
	var done sync.WaitGroup
	failures := make([]error, w.Accounts)
	for i := range w.Accounts {
		done.Go(func() {
			for time.Since(start) < 2*time.Minute {
				answer, err := all.Ask(i, "getDeviceAuthToken", calls[i])
				if strings.Contains(answer, "<authToken>"+token) {
					return
				}
				if failures[i] = err; err == nil {
					failures[i] = errors.New("it is turned away")
				}
				turnedAway.Add(1)
				time.Sleep(5 * time.Second)
			}
			failures[i] = fmt.Errorf("not upgraded in time: %w", failures[i])
		})
	}
	done.Wait()
	w.Seconds, w.TurnedAway = time.Since(start).Seconds(), int(turnedAway.Load())
	if w.Seconds > 120 {
		for _, err := range failures {
			if err != nil {
				return err
			}
		}
	}
	cpuAfter, aroundAfter, err := clocks(caddy, endpoint)
	if err != nil {
		return err
	}
	w.CPU, w.CPUAround = (cpuAfter - cpu).Seconds(), (aroundAfter - around).Seconds()
	w.Memory, err = memoryOf(caddy, peakMemory)
	return err
}

// clocks are the CPU times of the Caddy, and of the players and the token endpoint.
func clocks(caddy, endpoint *process) (of, around time.Duration, err error) {
	var t [3]time.Duration
	for i, pid := range []int{caddy.command.Process.Pid, os.Getpid(), endpoint.command.Process.Pid} {
		if t[i], err = cpuTime(pid); err != nil {
			return 0, 0, err
		}
	}
	return t[0], t[1] + t[2], nil
}

// asEndpoint in the environment makes this program a token endpoint at which each login takes so long. It is a process of its own,
// because it would wait behind 50,000 players otherwise.
const asEndpoint = "SMAPI_BENCH_ENDPOINT"

func startEndpoint(each time.Duration) (p *process, address string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	command := exec.Command(self)
	command.Env = append(os.Environ(), asEndpoint+"="+each.String())
	said, err := command.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := command.Start(); err != nil {
		return nil, "", err
	}
	p = &process{command: command}
	if _, err := fmt.Fscanln(said, &address); err != nil {
		p.stop()
		return nil, "", fmt.Errorf("the token endpoint does not start: %w", err)
	}
	return p, address, nil
}

// beEndpoint says its address, and serves until the process is killed.
func beEndpoint(duration string) error {
	each, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	places := make(chan time.Time, loginsAtOnce) // with when each was free
	for range loginsAtOnce {
		places <- time.Time{}
	}
	_, address, err := serve(func(out http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		begun := time.Now()
		free := <-places
		if free.After(begun) {
			begun = free
		}
		done := begun.Add(each) // whenever this one is awake again, so that it does as many logins as it should
		time.Sleep(time.Until(done))
		places <- done
		_, _ = io.WriteString(out, tokens)
	})
	if err != nil {
		return err
	}
	fmt.Println(address)
	select {}
}

// upgradeOf is the upgrade call of an account.
func upgradeOf(number int) string {
	call := envelope("<ns:getDeviceAuthToken><ns:householdId>Sonos_abc123</ns:householdId></ns:getDeviceAuthToken>")
	return strings.Replace(call, account, fmt.Sprintf("user%010d", number), 1)
}
