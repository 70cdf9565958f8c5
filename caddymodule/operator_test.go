package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// operated is a Caddy with an admin API, as an operator has it.
type operated struct {
	*site
	admin   *site
	storage string
}

// operate runs a Caddy with an admin API that logs everything. Its sites are %s, %s, ... in the directives.
func operate(t testing.TB, directives string) *operated {
	t.Helper()
	admin, address := loopback.FreeAddress(), loopback.FreeAddress()
	o := &operated{
		site:    &site{url: "http://" + address, logFile: filepath.Join(t.TempDir(), "log")},
		admin:   &site{url: "http://" + admin},
		storage: t.TempDir(),
	}
	load(t, fmt.Sprintf(`{
	admin %s
	persist_config off
	storage file_system %s
	log {
		output file %s
		level DEBUG
	}
	metrics
}
http://%s {
	bind 127.0.0.1
	log
	%s
}`, admin, o.storage, o.logFile, address, directives))
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func (s *site) get(t testing.TB, path string) answer {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true // a reload ends the admin API's connections
	return s.do(t, r)
}

// scrape returns the values of our metrics, by name and labels.
func (o *operated) scrape(t testing.TB) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for line := range strings.Lines(o.admin.get(t, "/metrics").body) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "caddy_smapi_upgrade_") {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			values[name] = number
		}
	}
	return values
}

func requests(method, outcome, credentials string) string {
	return fmt.Sprintf("caddy_smapi_upgrade_requests_total{credentials=%q,method=%q,outcome=%q}", credentials, method, outcome)
}

func TestEveryRequestIsCountedOnce(t *testing.T) {
	endpoint, old := serve(t, issuesTokens), oldService(t)
	o := operate(t, directive(endpoint, old, "refresh_auth_tokens", "expire_session_ids"))
	before := o.scrape(t)
	o.upgrade(t)
	o.upgrade(t) // again, which is no exchange
	o.post(t, file(t, "requests", "anonymous.xml"))
	o.call(t, "getSessionId", "get-session-id.xml")
	o.call(t, "refreshAuthToken", "refresh-auth-token.xml")
	o.call(t, "getMetadata", "forward-get-metadata.xml")
	o.post(t, file(t, "requests", "forward-poll.xml"))
	after := o.scrape(t)
	for name, want := range map[string]float64{
		requests("getDeviceAuthToken", "upgraded", "login"):                        2,
		requests("getDeviceAuthToken", "reauthorize", "anonymous"):                 1,
		requests("getSessionId", "expired", "login"):                               1,
		requests("refreshAuthToken", "refreshed", "login_token"):                   1,
		requests("other", "forwarded", "none"):                                     2,
		"caddy_smapi_upgrade_replayed_total":                                       1,
		`caddy_smapi_upgrade_exchange_duration_seconds_count{outcome="upgraded"}`:  1,
		`caddy_smapi_upgrade_exchange_duration_seconds_count{outcome="refreshed"}`: 1,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s has grown by %v, want %v", name, got, want)
		}
	}
	peeked := 0
	for _, name := range []string{"upgrade.xml", "upgrade.xml", "anonymous.xml", "get-session-id.xml", "refresh-auth-token.xml", "forward-poll.xml"} {
		peeked += len(file(t, "requests", name))
	}
	const bytesPeeked = "caddy_smapi_upgrade_peeked_bytes_total"
	if got := after[bytesPeeked] - before[bytesPeeked]; got != float64(peeked) {
		t.Errorf("%v bytes peeked, want %d", got, peeked)
	}
	var sum float64
	for name, value := range after {
		if strings.HasPrefix(name, "caddy_smapi_upgrade_requests_total") {
			sum += value - before[name]
		}
	}
	if sum != 7 {
		t.Errorf("%v requests are counted, of 7", sum)
	}
}

// Caddy has a registry for each configuration.
func TestMetricsOfThreeSitesOutliveReloads(t *testing.T) {
	endpoint, old := serve(t, issuesTokens), oldService(t)
	var o operated
	admin := loopback.FreeAddress()
	dir := t.TempDir()
	o.admin = &site{url: "http://" + admin}
	var sites []*site
	for range 3 {
		sites = append(sites, &site{url: "http://" + loopback.FreeAddress()})
	}
	reload := func(n int) {
		text := fmt.Sprintf("{\nadmin %s\npersist_config off\nstorage file_system %s\nlog {\noutput discard\n}\nmetrics\n}\n", admin, dir)
		for i, s := range sites {
			text += fmt.Sprintf("%s {\nbind 127.0.0.1\nroute {\nsmapi_upgrade %s/token%d {\nclient_id id%d\nclient_auth none\nreplay off\n}\nreverse_proxy %s\n}\n}\n",
				s.url, endpoint.URL, i%2, n, old.URL)
		}
		load(t, text)
	}
	reload(0)
	t.Cleanup(func() { _ = caddy.Stop() })
	before := o.scrape(t)
	for n := range 3 {
		if n > 0 {
			reload(n)
			http.DefaultTransport.(*http.Transport).CloseIdleConnections() // which the reload has ended
		}
		for _, s := range sites {
			checkAnswer(t, s.upgrade(t), "upgraded.xml")
		}
	}
	after := o.scrape(t)
	if got := after[requests("getDeviceAuthToken", "upgraded", "login")] - before[requests("getDeviceAuthToken", "upgraded", "login")]; got != 9 {
		t.Errorf("%v calls are counted, of 9", got)
	}
}

func TestTheTokenEndpointIsShownAsItIs(t *testing.T) {
	endpoint, arrived, proceed := hanging(t)
	o := operate(t, directive(endpoint, oldService(t), "max_in_flight 1"))
	defer proceed()
	answers := make(chan answer, 3)
	for _, name := range []string{"first", "second", "third"} {
		go func() { answers <- o.post(t, account(t, name)) }()
	}
	<-arrived
	status := func() endpointStatus { return onlyEndpoint(t, o) }
	for deadline := time.Now().Add(10 * time.Second); status().Waiting != 2; {
		if time.Now().After(deadline) {
			t.Fatalf("nobody waits: %+v", status())
		}
	}
	got := status()
	if got.InFlight != 1 || got.OldestWaitingSeconds <= 0 || got.Breaker != "closed" || got.HoldSeconds != 0 ||
		got.Endpoint != endpoint.URL+"/token" || got.ClientID != "the-id" {
		t.Errorf("the status is %+v", got)
	}
	values := o.scrape(t)
	for name, want := range map[string]float64{"exchanges_in_flight": 1, "exchanges_waiting": 2, "breaker_open": 0} {
		if got := values["caddy_smapi_upgrade_"+name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	proceed()
	for range 3 {
		checkAnswer(t, <-answers, "upgraded.xml")
	}
	got = status()
	want := map[string]uint64{"upgraded": 3}
	if got.InFlight != 0 || got.Waiting != 0 || got.OldestWaitingSeconds != 0 ||
		!maps.Equal(got.SinceStart, want) || !maps.Equal(got.Last5Minutes, want) || len(got.History) != 30 {
		t.Errorf("the status is %+v", got)
	}
	latest := map[string]uint64{} // which may be of two steps
	for _, step := range got.History[28:] {
		for outcome, n := range step {
			latest[outcome] += n
		}
	}
	if !maps.Equal(latest, want) {
		t.Errorf("the history is %v", got.History)
	}
}

// endpointStatus is what the admin API says of a token endpoint, as others read it.
type fuseStatus struct {
	Blown   bool    `json:"blown"`
	Percent float64 `json:"percent"`
	fuseTries
	Blew *fuseTries `json:"blew"`
}

type fuseTries struct {
	Tried      int    `json:"tried"`
	Rejected   int    `json:"rejected"`
	OAuthError string `json:"oauth_error"`
}

type endpointStatus struct {
	Endpoint             string              `json:"endpoint"`
	ClientID             string              `json:"client_id"`
	SinceStart           map[string]uint64   `json:"since_start"`
	Last5Minutes         map[string]uint64   `json:"last_5_minutes"`
	History              []map[string]uint64 `json:"history"`
	InFlight             int                 `json:"in_flight"`
	Waiting              int                 `json:"waiting"`
	OldestWaitingSeconds float64             `json:"oldest_waiting_seconds"`
	Breaker              string              `json:"breaker"`
	HoldSeconds          float64             `json:"hold_seconds"`
	LoginFuse            fuseStatus          `json:"login_fuse"`
	RefreshFuse          fuseStatus          `json:"refresh_fuse"`
	Secrets              []struct {
		Field          string     `json:"field"`
		ReadSecondsAgo float64    `json:"read_seconds_ago"`
		Stale          bool       `json:"stale"`
		Expires        *time.Time `json:"expires"`
	} `json:"secrets"`
}

func onlyEndpoint(t testing.TB, o *operated) endpointStatus {
	t.Helper()
	got := o.admin.get(t, "/smapi_upgrade/status")
	var status struct{ Endpoints []endpointStatus }
	d := json.NewDecoder(strings.NewReader(got.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&status); err != nil || got.status != http.StatusOK || len(status.Endpoints) != 1 {
		t.Fatalf("%v: %+v", err, got)
	}
	return status.Endpoints[0]
}

func TestTheStatusTellsOfHoldsAndBreakersAndSoDoesTheLog(t *testing.T) {
	var answers http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "60")
		says(http.StatusServiceUnavailable, `{}`)(w, r)
	}
	endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) { answers(w, r) })
	o := operate(t, directive(endpoint, oldService(t)))
	o.upgrade(t)
	if got := onlyEndpoint(t, o); got.HoldSeconds <= 0 || got.HoldSeconds > 60 || o.scrape(t)["caddy_smapi_upgrade_holds"] != 1 {
		t.Errorf("the status is %+v", got)
	}
	waitForLog(t, o.site, "holding back")

	answers = says(http.StatusInternalServerError, ``)
	o = operate(t, strings.Replace(directive(endpoint, oldService(t)), "the-id", "another-id", 1))
	var status endpointStatus
	var metric float64
	for i := 0; status.Breaker != "open" || metric != 1; i++ { // it is tried again from time to time
		if i == 200 {
			t.Fatalf("the status is %+v, and the metrics say %v", status, metric)
		}
		o.post(t, account(t, fmt.Sprint("account", i)))
		if i >= 19 {
			status, metric = onlyEndpoint(t, o), o.scrape(t)["caddy_smapi_upgrade_breaker_open"]
		}
	}
	waitForLog(t, o.site, `"breaker":"open"`)
}

func waitForLog(t testing.TB, s *site, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(s.log(t), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log lacks %q", text)
		}
	}
}

func TestTheStatusTellsHowOldSecretsAre(t *testing.T) {
	endpoint := httptest.NewTLSServer(issuesTokens)
	defer endpoint.Close()
	authority, _ := pemFiles(t, endpoint)
	dir := t.TempDir()
	cert, key := certificate(t, 1)
	write(t, filepath.Join(dir, "cert"), cert)
	write(t, filepath.Join(dir, "key"), key)
	write(t, filepath.Join(dir, "secret"), "secret")
	o := operate(t, fmt.Sprintf(`smapi_upgrade %s/token {
		client_id id
		client_secret {file.%s/secret}
		transport http {
			tls_trust_pool file %s
			tls_client_auth %s/cert %s/key
		}
	}`, endpoint.URL, dir, authority, dir, dir))
	status := onlyEndpoint(t, o)
	values := o.scrape(t)
	const ends, stale = `caddy_smapi_upgrade_certificate_end_timestamp_seconds{of="%s"}`, "caddy_smapi_upgrade_secrets_stale"
	if _, seen := values[fmt.Sprintf(ends, "server")]; seen || values[fmt.Sprintf(ends, "client")] != float64(status.Secrets[1].Expires.Unix()) || values[stale] != 0 {
		t.Errorf("before an exchange the metrics are %v", values)
	}
	o.upgrade(t)
	if got, want := o.scrape(t)[fmt.Sprintf(ends, "server")], endpoint.Certificate().NotAfter.Unix(); got != float64(want) {
		t.Errorf("the server's certificate ends at %v, not %v", got, want)
	}
	if len(status.Secrets) != 2 || status.Secrets[0].Field != "client_secret" || status.Secrets[0].Expires != nil ||
		status.Secrets[1].Field != "transport" || time.Until(*status.Secrets[1].Expires) > time.Hour {
		t.Fatalf("the status is %+v", status)
	}
	if err := os.Remove(filepath.Join(dir, "secret")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the status tells that a file is gone", func() bool {
		status := onlyEndpoint(t, o)
		return status.Secrets[0].Stale && status.Secrets[0].ReadSecondsAgo > 0 && o.scrape(t)[stale] == 1
	})
}

func TestItIsReadyWhenAHandlerRunsWhateverTheTokenEndpointDoes(t *testing.T) {
	o := operate(t, "smapi_upgrade http://127.0.0.1:1/token {\nclient_id id\nclient_auth none\n}")
	if got := o.admin.get(t, "/smapi_upgrade/ready"); got.status != http.StatusOK || got.body != `{"ready":true}`+"\n" {
		t.Errorf("%+v", got)
	}
	o = operate(t, "respond ok")
	if got := o.admin.get(t, "/smapi_upgrade/ready"); got.status != http.StatusServiceUnavailable {
		t.Errorf("without a handler: %+v", got)
	}
	if got := o.admin.get(t, "/smapi_upgrade/status"); got.status != http.StatusOK || got.body != `{"endpoints":[]}`+"\n" {
		t.Errorf("without a handler: %+v", got)
	}
	r, err := http.NewRequest(http.MethodPost, o.admin.url+"/smapi_upgrade/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.do(t, r); got.status != http.StatusMethodNotAllowed {
		t.Errorf("a POST: %+v", got)
	}
}

var scrapeFile = flag.String("scrape", "", "write our metrics to this `file`, for promtool")

func TestMetricsAreNamedAsPrometheusWantsThem(t *testing.T) {
	o := operate(t, withVault(rotate(t, 3600), oldService(t), vaultFile(t)))
	o.upgrade(t)
	caddymodule.Forget(t.Context())
	var ours strings.Builder
	for line := range strings.Lines(o.admin.get(t, "/metrics").body) {
		if strings.Contains(line, "caddy_smapi_upgrade_") {
			ours.WriteString(line)
		}
	}
	if *scrapeFile != "" {
		write(t, *scrapeFile, ours.String())
	}
	problems, err := promlint.New(strings.NewReader(ours.String())).Lint()
	if err != nil || len(problems) > 0 || ours.Len() == 0 {
		t.Errorf("%v %v in\n%s", err, problems, ours.String())
	}
}

var metricName = regexp.MustCompile(`caddy_smapi_upgrade_[a-z0-9_]+:?`) // with a colon it is a recording rule

func TestTheKitUsesMetricsThatThereAre(t *testing.T) {
	o := operate(t, withVault(rotate(t, 3600), oldService(t), vaultFile(t)))
	o.upgrade(t)
	caddymodule.Forget(t.Context())
	exists := map[string]bool{"caddy_smapi_upgrade_certificate_end_timestamp_seconds": true} // which only TLS has
	for name := range o.scrape(t) {
		exists[metricName.FindString(name)] = true
	}
	paths, err := filepath.Glob("../docs/*")
	if err != nil || len(paths) < 10 {
		t.Fatal(paths, err)
	}
	for _, path := range append(paths, "../README.md", "../CHANGELOG.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		used := metricName.FindAllString(string(text), -1)
		if filepath.Ext(path) != ".md" && strings.Contains(path, "prometheus") && len(used) == 0 {
			t.Errorf("%s uses no metric", path)
		}
		slices.Sort(used)
		for _, name := range slices.Compact(used) {
			if !exists[name] && !exists[name+"_bucket"] && !strings.HasSuffix(name, ":") {
				t.Errorf("%s: there is no %s", path, name)
			}
		}
	}
}

func TestTheAccessLogSaysWhatBecameOfACall(t *testing.T) {
	o := operate(t, directive(serve(t, says(503, "")), oldService(t)))
	got := o.upgrade(t)
	o.call(t, "getMetadata", "forward-get-metadata.xml")
	code := strings.TrimPrefix(reference.FindString(got.body), "reference ")
	var ours, others int
	for line := range strings.Lines(o.log(t)) {
		if !strings.Contains(line, "handled request") {
			continue
		}
		if strings.Contains(line, `"smapi_outcome":"unavailable"`) && strings.Contains(line, `"smapi_reference":"`+code+`"`) {
			ours++
		} else if !strings.Contains(line, "smapi_") {
			others++
		}
	}
	if ours != 1 || others != 1 {
		t.Errorf("%d lines of ours and %d others", ours, others)
	}
}

func TestOneHomeCanBeFollowedThroughTheLog(t *testing.T) {
	s := caddyRun(t, directive(serve(t, issuesTokens), oldService(t)))
	digest := regexp.MustCompile(`"household":"([0-9a-f]{16})"`)
	s.post(t, account(t, "first"))
	s.post(t, account(t, "second"))
	s.post(t, bytes.Replace(account(t, "third"), []byte("Sonos_abc123"), []byte("Sonos_other"), 1))
	found := digest.FindAllStringSubmatch(s.log(t), -1)
	if len(found) != 3 || found[0][1] != found[1][1] || found[0][1] == found[2][1] {
		t.Errorf("the digests are %v", found)
	}
}

func TestAStormDoesNotFloodTheLog(t *testing.T) {
	s := caddyRun(t, directive(serve(t, issuesTokens), oldService(t), "mode reauthorize"))
	const calls = 1000
	client := player(t)
	var all sync.WaitGroup
	begin := time.Now()
	for worker := range 4 {
		all.Go(func() {
			for i := range calls / 4 {
				if _, err := ask(t, client, s, account(t, fmt.Sprint(worker, "-", i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	most := (100 + calls/100) * int(2+time.Since(begin)/time.Second)
	if n := len(answeredLines(s.log(t))); n < 100 || n > most {
		t.Errorf("%d lines about %d calls", n, calls)
	}
}

// spans is a collector of traces, by OTLP over HTTP.
type spans struct {
	mu  sync.Mutex
	raw bytes.Buffer
	all []*trace.Span
}

// collect has Caddy's tracing send its spans here.
func collect(t testing.TB) *spans {
	t.Helper()
	s := new(spans)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.raw.Write(body)
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				s.all = append(s.all, scope.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(receiver.Close)
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
		"OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_SCHEDULE_DELAY": "10",
	} {
		if setenv, ok := t.(interface{ Setenv(string, string) }); ok {
			setenv.Setenv(name, value)
		}
	}
	return s
}

func TestTheExchangeIsASpanOfItsRequestAndTheTokenEndpointGoesOn(t *testing.T) {
	received := collect(t)
	endpoint, old := serve(t, says(400, `{"error":"invalid_grant"}`)), oldService(t)
	s := caddyRun(t, "tracing {\nspan request\n}\n"+directive(endpoint, old))
	s.upgrade(t)
	_, header := form(t, endpoint)
	if err := caddy.Stop(); err != nil { // which sends what is left
		t.Fatal(err)
	}
	var request, exchange *trace.Span
	for _, span := range received.all {
		switch span.Name {
		case "request":
			request = span
		case "smapi_upgrade exchange":
			exchange = span
		}
	}
	if request == nil || exchange == nil {
		t.Fatalf("the spans are %v", received.all)
	}
	if !bytes.Equal(exchange.ParentSpanId, request.SpanId) || !bytes.Equal(exchange.TraceId, request.TraceId) {
		t.Error("the exchange is not under its request")
	}
	if want := fmt.Sprintf("00-%x-%x-01", exchange.TraceId, exchange.SpanId); header.Get("Traceparent") != want {
		t.Errorf("the token endpoint gets %q, want %q", header.Get("Traceparent"), want)
	}
	got := map[string]string{}
	for _, a := range exchange.Attributes {
		got[a.Key] = strings.Trim(a.Value.String(), `"`)
	}
	for name, want := range map[string]string{
		"oauth.grant_type": "password", "oauth.error": "invalid_grant", "smapi.outcome": "rejected", "http.response.status_code": "400",
	} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestWithoutTracingNothingIsTraced(t *testing.T) {
	endpoint := serve(t, issuesTokens)
	s := caddyRun(t, directive(endpoint, oldService(t)))
	r := s.request(t, file(t, "requests", "upgrade.xml"))
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	checkAnswer(t, s.do(t, r), "upgraded.xml")
	if _, header := form(t, endpoint); header.Get("Traceparent") != "" {
		t.Errorf("the token endpoint gets %q", header.Get("Traceparent"))
	}
}

func TestAKeyInTheQueryOfTheTokenEndpointIsNotShown(t *testing.T) {
	endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "60")
		says(http.StatusServiceUnavailable, "")(w, r)
	})
	t.Setenv("SMAPI_TEST_KEY", "marker-key")
	o := operate(t, fmt.Sprintf("smapi_upgrade %s/token?key={env.SMAPI_TEST_KEY} {\nclient_id id\nclient_auth none\n}", endpoint.URL))
	o.upgrade(t)
	if asked := endpoint.asked(); asked[0].URL.RawQuery != "key=marker-key" {
		t.Errorf("it was asked by %q", asked[0].URL.RawQuery)
	}
	waitForLog(t, o.site, "holding back")
	checkNoMarker(t, "the log", o.log(t))
	checkNoMarker(t, "the status", o.admin.get(t, "/smapi_upgrade/status").body)
}

func TestWhatWasNotAskedTookNoTime(t *testing.T) {
	const durations = `caddy_smapi_upgrade_exchange_duration_seconds_count{outcome="unavailable"}`
	endpoint := serve(t, says(http.StatusInternalServerError, ``))
	o := operate(t, directive(endpoint, oldService(t)))
	before := o.scrape(t)[durations]
	for i := range 50 { // of which the breaker turns most away
		o.post(t, account(t, fmt.Sprint("account", i)))
	}
	if took, asked := o.scrape(t)[durations]-before, len(endpoint.asked()); took != float64(asked) || asked == 50 {
		t.Errorf("%v durations of %d exchanges", took, asked)
	}
}

// A stranger who blows the fuse with made-up accounts harms nobody: who is accepted is served, and who is refused is asked
// again later. The operator sees it.
func TestABlownFuseIsSeenAndHarmsNobody(t *testing.T) {
	var failed atomic.Int32
	o := operate(t, directive(serve(t, passwords(&failed)), oldService(t)))
	for i := range 30 {
		a := o.post(t, tries(t, "made-up-"+strconv.Itoa(i), "wrong", "home"))
		if i < 19 {
			checkAnswer(t, a, "reauthorize.xml")
		} else {
			checkAnswer(t, a, "service-unavailable.xml")
		}
	}
	if got := onlyEndpoint(t, o); !got.LoginFuse.Blown || got.LoginFuse.Percent != 50 || got.RefreshFuse.Blown || got.LoginFuse.Tried != 10 ||
		got.LoginFuse.Blew == nil || *got.LoginFuse.Blew != (fuseTries{20, 20, "invalid_grant"}) {
		t.Errorf("the status is %+v", got)
	}
	waitForLog(t, o.site, "fuse blown: most accounts are rejected")
	if n := o.scrape(t)["caddy_smapi_upgrade_fuses_blown"]; n != 1 {
		t.Errorf("the metric is %v", n)
	}
	for i := range 5 {
		checkAnswer(t, o.post(t, tries(t, "good-"+strconv.Itoa(i), "right", "home")), "upgraded.xml")
	}
	for i := range 30 {
		checkAnswer(t, o.post(t, tries(t, "more-"+strconv.Itoa(i), "right", "home")), "upgraded.xml")
	}
	waitForLog(t, o.site, "fuse is whole again")
	if got := onlyEndpoint(t, o); got.LoginFuse.Blown || got.LoginFuse.Blew != nil {
		t.Errorf("the status is %+v", got)
	}
}
