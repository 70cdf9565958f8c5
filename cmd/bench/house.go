package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// house is what stands around the Caddy: the old service and the token endpoint, in this process, and the
// addresses of the sites.
type house struct {
	dir           string
	service       *http.Server
	tokenEndpoint *http.Server
	serviceAddr   string
	tokenAddr     string

	bareAddr  string // reverse_proxy to the old service
	withAddr  string // the same behind smapi_upgrade
	tokenSite string // reverse_proxy to the token endpoint
	vaultAddr string // smapi_upgrade with a vault
	oldAddr   string // smapi_upgrade with an old service
}

const tokens = `{"access_token":"` + token + `","token_type":"Bearer","expires_in":3600,"refresh_token":"` + token + `"}`
const token = "YWVMODAYZWUTYMY0YS0ZYZLJLTKXZMETYMRHOTGZYTE4ZDMZ"

const session = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><getSessionIdResponse xmlns="http://www.sonos.com/Services/1.1">` +
	`<getSessionIdResult>` + token + `</getSessionIdResult></getSessionIdResponse></s:Body></s:Envelope>`

func newHouse() (*house, error) {
	dir, err := os.MkdirTemp("", "smapi-bench-")
	if err != nil {
		return nil, err
	}
	h := &house{dir: dir}
	h.service, h.serviceAddr, err = serve(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		if strings.Contains(r.Header.Get("SOAPAction"), "getSessionId") {
			_, _ = io.WriteString(w, session)
			return
		}
		_, _ = io.WriteString(w, "<ok/>")
	})
	if err != nil {
		return nil, err
	}
	h.tokenEndpoint, h.tokenAddr, err = serve(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, tokens)
	})
	if err != nil {
		return nil, err
	}
	for _, address := range []*string{&h.bareAddr, &h.withAddr, &h.tokenSite, &h.vaultAddr, &h.oldAddr} {
		*address = loopback.FreeAddress()
	}
	return h, nil
}

func serve(handler http.HandlerFunc) (*http.Server, string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(listener) }()
	return server, listener.Addr().String(), nil
}

func (h *house) close() {
	_ = h.service.Close()
	_ = h.tokenEndpoint.Close()
	_ = os.RemoveAll(h.dir)
}

// process is the Caddy that is measured.
type process struct {
	command *exec.Cmd
	once    sync.Once
}

// vaultKeys makes a vault's key file.
func (h *house) vaultKeys() (file string, err error) {
	keys, err := seal.GenerateKeys(nil)
	if err != nil {
		return "", err
	}
	file = filepath.Join(h.dir, "vault.json")
	return file, os.WriteFile(file, keys, 0o600)
}

// start starts a Caddy with the sites that are compared.
func (h *house) start(admin string) (*process, error) {
	keyFile, err := h.vaultKeys()
	if err != nil {
		return nil, err
	}
	return h.launch(admin, fmt.Sprintf(`
http://%s {
	bind 127.0.0.1
	reverse_proxy %s
}
http://%s {
	bind 127.0.0.1
	smapi_upgrade http://%s/token {
		client_id the-client
		client_secret {env.SMAPI_BENCH_SECRET}
		scope offline_access
	}
	reverse_proxy %s
}
http://%s {
	bind 127.0.0.1
	reverse_proxy %s
}
http://%s {
	bind 127.0.0.1
	smapi_upgrade http://%s/token {
		client_id another-client
		client_secret {env.SMAPI_BENCH_SECRET}
		scope offline_access
		refresh_auth_tokens
		vault %s
		replay off
	}
	reverse_proxy %s
}
http://%s {
	bind 127.0.0.1
	smapi_upgrade http://%s/token {
		client_id a-third-client
		client_secret {env.SMAPI_BENCH_SECRET}
		scope offline_access
		refresh_auth_tokens
		vault %s
		old_service session_id
	}
	reverse_proxy %s
}
`, h.bareAddr, h.serviceAddr, h.withAddr, h.tokenAddr, h.serviceAddr, h.tokenSite, h.tokenAddr,
		h.vaultAddr, h.tokenAddr, keyFile, h.serviceAddr, h.oldAddr, h.tokenAddr, keyFile, h.serviceAddr),
		h.bareAddr, h.withAddr, h.tokenSite, h.vaultAddr, h.oldAddr)
}

// launch starts a Caddy with these sites and waits for their addresses.
func (h *house) launch(admin, sites string, addresses ...string) (*process, error) {
	config := filepath.Join(h.dir, "Caddyfile")
	if err := os.WriteFile(config, fmt.Appendf(nil, `{
	admin %s
	persist_config off
	auto_https off
	storage file_system %s
	servers {
		protocols h1 h2c
	}
	log {
		level ERROR
	}
}%s`, admin, h.dir, sites), 0o600); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, "run", "--config", config, "--adapter", "caddyfile")
	command.Env = append(os.Environ(), asCaddy+"=1", "SMAPI_BENCH_SECRET=the-secret", "XDG_DATA_HOME="+h.dir, "XDG_CONFIG_HOME="+h.dir)
	var said bytes.Buffer
	command.Stderr = &said
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command: command}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, address := range addresses {
		for {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err == nil {
				conn.Close()
				break
			}
			if ctx.Err() != nil {
				p.stop()
				return nil, fmt.Errorf("the Caddy does not start: %s", said.String())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return p, nil
}

func (p *process) stop() {
	p.once.Do(func() {
		_ = p.command.Process.Kill()
		_ = p.command.Wait()
	})
}

// load is a request that is sent again and again to one address over kept connections.
type load struct {
	address string
	request []byte
	expect  string // somewhere in the answer
}

// account is a user name in a request. Each request has another one in its place, because the same call
// within a minute is not exchanged again.
const account = "user0000000000"

var accounts atomic.Uint64

// pair is a request to the bare proxy, and what is compared with it.
type pair struct {
	name       string
	bare, with load
}

func (h *house) pairs() []pair {
	both := func(name string, request func(host string) []byte) pair {
		return pair{
			name: name,
			bare: load{h.bareAddr, request(h.bareAddr), "<ok/>"},
			with: load{h.withAddr, request(h.withAddr), "<ok/>"},
		}
	}
	soap := func(action, call string) func(string) []byte {
		return func(host string) []byte { return post(host, "text/xml; charset=utf-8", action, envelope(call)) }
	}
	metadata := "<ns:getMetadata><ns:id>root</ns:id><ns:index>0</ns:index><ns:count>100</ns:count></ns:getMetadata>"
	household := "<ns:householdId>Sonos_abc123</ns:householdId>"
	poll := "<ns:getDeviceAuthToken>" + household + "<ns:linkCode>ABC-123</ns:linkCode></ns:getDeviceAuthToken>"
	upgrade := "<ns:getDeviceAuthToken>" + household + "</ns:getDeviceAuthToken>"
	upload := strings.Repeat("x", 10_000_000)
	translated := h.translated(soap("getDeviceAuthToken", upgrade)(h.oldAddr), metadata)
	form := "grant_type=password&username=" + account + "&password=12345&scope=offline_access"
	return []pair{
		both("another method, by SOAPAction", soap("getMetadata", metadata)),
		both("a call without SOAPAction", soap("", metadata)),
		both("a poll with a linkCode", soap("getDeviceAuthToken", poll)),
		both("an upload of 10 MB", func(host string) []byte { return post(host, "text/xml", "", upload) }),
		{
			name: "the upgrade, beside its token request proxied",
			bare: load{h.tokenSite, post(h.tokenSite, "application/x-www-form-urlencoded", "", form), token},
			with: load{h.withAddr, soap("getDeviceAuthToken", upgrade)(h.withAddr), "<authToken>" + token},
		},
		{
			name: "a refresh that the vault answers, beside a call",
			bare: load{h.bareAddr, soap("getMetadata", metadata)(h.bareAddr), "<ok/>"},
			with: load{h.vaultAddr, h.refresh(soap("getDeviceAuthToken", upgrade)(h.vaultAddr)), "<authToken>" + token},
		},
		{
			name: "the upgrade with a vault, beside one without",
			bare: load{h.withAddr, soap("getDeviceAuthToken", upgrade)(h.withAddr), "<authToken>" + token},
			with: load{h.vaultAddr, soap("getDeviceAuthToken", upgrade)(h.vaultAddr), "<authToken>" + token},
		},
		{
			name: "a call of an upgraded home, put to the old service",
			bare: load{h.bareAddr, translated, "<ok/>"},
			with: load{h.oldAddr, translated, "<ok/>"},
		},
		{
			name: "a call of another home, with an old service",
			bare: load{h.bareAddr, soap("getMetadata", metadata)(h.bareAddr), "<ok/>"},
			with: load{h.oldAddr, soap("getMetadata", metadata)(h.oldAddr), "<ok/>"},
		},
		{
			name: "a download, with an old service",
			bare: load{h.bareAddr, get(h.bareAddr), "<ok/>"},
			with: load{h.oldAddr, get(h.oldAddr), "<ok/>"},
		},
	}
}

// refresh is a call with the handle that an upgrade was answered with, and an old token.
func (h *house) refresh(upgrade []byte) []byte {
	_, handle := pairOf(h.vaultAddr, upgrade)
	return post(h.vaultAddr, "text/xml; charset=utf-8", "refreshAuthToken", withTokens("<ns:refreshAuthToken/>", "old", handle))
}

// translated is a call with the pair that an upgrade was answered with.
func (h *house) translated(upgrade []byte, call string) []byte {
	reference, handle := pairOf(h.oldAddr, upgrade)
	return post(h.oldAddr, "text/xml; charset=utf-8", "getMetadata", withTokens(call, reference, handle))
}

// pairOf upgrades, and returns the pair. It is blank, which no side answers, where there is none.
func pairOf(address string, upgrade []byte) (authToken, privateKey string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", ""
	}
	defer conn.Close()
	if _, err := conn.Write(upgrade); err != nil {
		return "", ""
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", ""
	}
	body, _ := io.ReadAll(response.Body)
	part := func(name string) string {
		_, text, _ := strings.Cut(string(body), "<"+name+">")
		text, _, _ = strings.Cut(text, "<")
		return text
	}
	return part("authToken"), part("privateKey")
}

func withTokens(call, token, key string) string {
	call = envelope(call)
	login := call[strings.Index(call, "<ns:login>") : strings.Index(call, "</ns:login>")+len("</ns:login>")]
	return strings.Replace(call, login, "<ns:loginToken><ns:token>"+token+"</ns:token><ns:key>"+key+
		"</ns:key><ns:householdId>Sonos_abc123</ns:householdId></ns:loginToken>", 1)
}

func get(host string) []byte {
	return []byte("GET /art.jpg HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Linux UPnP/1.0 Sonos/83.1-61240 (ZPS9)\r\n\r\n")
}

func envelope(call string) string {
	return `<?xml version="1.0" encoding="utf-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:ns="http://www.sonos.com/Services/1.1">
<soapenv:Header><ns:credentials><ns:deviceId>00-0E-58-5B-06-D6:8</ns:deviceId><ns:deviceProvider>Sonos</ns:deviceProvider>` +
		`<ns:login><ns:username>` + account + `</ns:username><ns:password>12345</ns:password></ns:login></ns:credentials></soapenv:Header>
<soapenv:Body>` + call + `</soapenv:Body></soapenv:Envelope>`
}

func post(host, contentType, action, body string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST /smapi HTTP/1.1\r\nHost: %s\r\nUser-Agent: Linux UPnP/1.0 Sonos/83.1-61240 (ZPS9)\r\n", host)
	fmt.Fprintf(&b, "Accept-Encoding: gzip\r\nContent-Type: %s\r\nContent-Length: %d\r\n", contentType, len(body))
	if action != "" {
		fmt.Fprintf(&b, "SOAPAction: \"http://www.sonos.com/Services/1.1#%s\"\r\n", action)
	} else if contentType == "application/x-www-form-urlencoded" {
		fmt.Fprint(&b, "Accept: application/json\r\nAuthorization: Basic dGhlLWNsaWVudDp0aGUtc2VjcmV0\r\n")
	}
	b.WriteString("\r\n" + body)
	return b.Bytes()
}

// measurement is one slice of load: CPU time per request in microseconds, and requests per second.
type measurement struct{ cpu, rate float64 }

// players is how many requests are under way at once.
const players = 8

// drive sends the request in a closed loop for some time.
func (l load) drive(caddy *process, slice time.Duration) (measurement, error) {
	conns := make([]net.Conn, players)
	for i := range conns {
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			return measurement{}, err
		}
		defer conn.Close()
		conns[i] = conn
	}
	before, err := cpuTime(caddy.command.Process.Pid)
	if err != nil {
		return measurement{}, err
	}
	started := time.Now()
	counts, failures := make([]int, players), make([]error, players)
	var all sync.WaitGroup
	for i, conn := range conns {
		all.Go(func() {
			answers := bufio.NewReader(conn)
			request := slices.Clone(l.request)
			at := bytes.Index(request, []byte(account))
			for time.Since(started) < slice && failures[i] == nil {
				if at >= 0 {
					copy(request[at:], fmt.Sprintf("user%010d", accounts.Add(1)))
				}
				failures[i] = l.once(conn, request, answers)
				counts[i]++
			}
		})
	}
	all.Wait()
	took := time.Since(started)
	after, err := cpuTime(caddy.command.Process.Pid)
	if err = errors.Join(append(failures, err)...); err != nil {
		return measurement{}, err
	}
	requests := 0.0
	for _, n := range counts {
		requests += float64(n)
	}
	return measurement{
		cpu:  float64(after-before) / requests / 1e3,
		rate: requests / took.Seconds(),
	}, nil
}

func (l load) once(conn net.Conn, request []byte, answers *bufio.Reader) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || !strings.Contains(string(body), l.expect) {
		return fmt.Errorf("answered with %s: %s", answer.Status, body)
	}
	return nil
}

// measureMemory holds slow uploads open, to the bare proxy and through the module, each with a Caddy of its own.
func (h *house) measureMemory(uploads int) (*Memory, error) {
	m := &Memory{Uploads: uploads}
	for _, side := range []struct {
		address string
		peak    *float64
	}{{h.bareAddr, &m.Bare}, {h.withAddr, &m.With}} {
		caddy, err := h.start("off")
		if err != nil {
			return nil, err
		}
		err = upload(side.address, uploads)
		if err == nil {
			*side.peak, err = memoryOf(caddy, peakMemory)
		}
		caddy.stop()
		if err != nil {
			return nil, err
		}
	}
	m.Ratio = m.With / m.Bare
	return m, nil
}

// upload sends bodies of 1 MB in parts, all of them abreast.
func upload(address string, uploads int) error {
	const parts = 20
	part := bytes.Repeat([]byte("x"), 1_000_000/parts)
	conns := make([]net.Conn, uploads)
	head := post(address, "text/xml; charset=utf-8", "reportPlaySeconds", "")
	head = bytes.Replace(head, []byte("Content-Length: 0"), []byte("Content-Length: "+strconv.Itoa(parts*len(part))), 1)
	for i := range conns {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write(head); err != nil {
			return err
		}
		conns[i] = conn
	}
	for n := range parts {
		progress("memory: part %d of %d", n+1, parts)
		for _, conn := range conns {
			if _, err := conn.Write(part); err != nil {
				return err
			}
		}
	}
	for _, conn := range conns {
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("answered with %s", answer.Status)
		}
	}
	return nil
}

// The fields of /proc/PID/status.
const (
	peakMemory    = "VmHWM:"
	currentMemory = "VmRSS:"
)

// memoryOf is the resident memory of a process, in MiB.
func memoryOf(p *process, field string) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == field {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("the system does not tell the memory of a process")
}
