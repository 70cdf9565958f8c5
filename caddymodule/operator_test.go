package caddymodule_test

import (
	"bytes"
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
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

func requests(method, outcome, credentials string) string {
	return fmt.Sprintf("caddy_smapi_upgrade_requests_total{credentials=%q,method=%q,outcome=%q}", credentials, method, outcome)
}

func TestEveryRequestIsCountedOnce(t *testing.T) {
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	o := caddytest.Operate(t, caddytest.Directive(endpoint, old, "refresh_auth_tokens", "expire_session_ids"))
	before := o.Scrape(t)
	o.Upgrade(t)
	o.Upgrade(t) // again, which is no exchange
	o.Post(t, caddytest.File(t, "requests", "anonymous.xml"))
	o.Call(t, "getSessionId", "get-session-id.xml")
	o.Call(t, "refreshAuthToken", "refresh-auth-token.xml")
	o.Call(t, "getMetadata", "forward-get-metadata.xml")
	o.Post(t, caddytest.File(t, "requests", "forward-poll.xml"))
	after := o.Scrape(t)
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
		peeked += len(caddytest.File(t, "requests", name))
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
	endpoint, old := caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)
	var o caddytest.Operated
	admin := loopback.FreeAddress()
	dir := t.TempDir()
	o.Admin = &caddytest.Site{URL: "http://" + admin}
	var sites []*caddytest.Site
	for range 3 {
		sites = append(sites, &caddytest.Site{URL: "http://" + loopback.FreeAddress()})
	}
	reload := func(n int) {
		text := fmt.Sprintf("{\nadmin %s\npersist_config off\nstorage file_system %s\nlog {\noutput discard\n}\nmetrics\n}\n", admin, dir)
		var addresses []string
		for i, s := range sites {
			text += fmt.Sprintf("%s {\nbind 127.0.0.1\nroute {\nsmapi_upgrade %s/token%d {\nclient_id id%d\nclient_auth none\nreplay off\n}\nreverse_proxy %s\n}\n}\n",
				s.URL, endpoint.URL, i%2, n, old.URL)
			addresses = append(addresses, strings.TrimPrefix(s.URL, "http://"))
		}
		caddytest.Reload(t, text, addresses...)
	}
	reload(0)
	t.Cleanup(func() { _ = caddy.Stop() })
	before := o.Scrape(t)
	for n := range 3 {
		if n > 0 {
			reload(n)
			http.DefaultTransport.(*http.Transport).CloseIdleConnections() // which the reload has ended
		}
		for _, s := range sites {
			caddytest.CheckAnswer(t, s.Upgrade(t), "upgraded.xml")
		}
	}
	after := o.Scrape(t)
	if got := after[requests("getDeviceAuthToken", "upgraded", "login")] - before[requests("getDeviceAuthToken", "upgraded", "login")]; got != 9 {
		t.Errorf("%v calls are counted, of 9", got)
	}
}

func TestTheTokenEndpointIsShownAsItIs(t *testing.T) {
	endpoint, arrived, proceed := caddytest.Hanging(t)
	o := caddytest.Operate(t, caddytest.Directive(endpoint, caddytest.OldService(t), "max_in_flight 1"))
	defer proceed()
	answers := make(chan caddytest.Answer, 3)
	for _, name := range []string{"first", "second", "third"} {
		go func() { answers <- o.Post(t, caddytest.Account(t, name)) }()
	}
	<-arrived
	status := func() caddytest.EndpointStatus { return caddytest.OnlyEndpoint(t, o) }
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
	values := o.Scrape(t)
	for name, want := range map[string]float64{"exchanges_in_flight": 1, "exchanges_waiting": 2, "breaker_open": 0} {
		if got := values["caddy_smapi_upgrade_"+name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	proceed()
	for range 3 {
		caddytest.CheckAnswer(t, <-answers, "upgraded.xml")
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

func TestTheStatusTellsOfHoldsAndBreakersAndSoDoesTheLog(t *testing.T) {
	var answers http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "60")
		caddytest.Says(http.StatusServiceUnavailable, `{}`)(w, r)
	}
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) { answers(w, r) })
	o := caddytest.Operate(t, caddytest.Directive(endpoint, caddytest.OldService(t)))
	o.Upgrade(t)
	if got := caddytest.OnlyEndpoint(t, o); got.HoldSeconds <= 0 || got.HoldSeconds > 60 || o.Scrape(t)["caddy_smapi_upgrade_holds"] != 1 {
		t.Errorf("the status is %+v", got)
	}
	caddytest.WaitForLog(t, o.Site, "holding back")

	answers = caddytest.Says(http.StatusInternalServerError, ``)
	o = caddytest.Operate(t, strings.Replace(caddytest.Directive(endpoint, caddytest.OldService(t)), "the-id", "another-id", 1))
	var status caddytest.EndpointStatus
	var metric float64
	for i := 0; status.Breaker != "open" || metric != 1; i++ { // it is tried again from time to time
		if i == 200 {
			t.Fatalf("the status is %+v, and the metrics say %v", status, metric)
		}
		o.Post(t, caddytest.Account(t, fmt.Sprint("account", i)))
		if i >= 19 {
			status, metric = caddytest.OnlyEndpoint(t, o), o.Scrape(t)["caddy_smapi_upgrade_breaker_open"]
		}
	}
	caddytest.WaitForLog(t, o.Site, `"breaker":"open"`)
}

func TestTheStatusTellsHowOldSecretsAre(t *testing.T) {
	endpoint := httptest.NewTLSServer(caddytest.IssuesTokens)
	defer endpoint.Close()
	authority, _ := caddytest.PEMFiles(t, endpoint)
	dir := t.TempDir()
	cert, key := caddytest.Certificate(t, 1)
	caddytest.Write(t, filepath.Join(dir, "cert"), cert)
	caddytest.Write(t, filepath.Join(dir, "key"), key)
	caddytest.Write(t, filepath.Join(dir, "secret"), "secret")
	o := caddytest.Operate(t, fmt.Sprintf(`smapi_upgrade %s/token {
		client_id id
		client_secret {file.%s/secret}
		transport http {
			tls_trust_pool file %s
			tls_client_auth %s/cert %s/key
		}
	}`, endpoint.URL, dir, authority, dir, dir))
	status := caddytest.OnlyEndpoint(t, o)
	values := o.Scrape(t)
	const ends, stale = `caddy_smapi_upgrade_certificate_end_timestamp_seconds{of="%s"}`, "caddy_smapi_upgrade_secrets_stale"
	if _, seen := values[fmt.Sprintf(ends, "server")]; seen || values[fmt.Sprintf(ends, "client")] != float64(status.Secrets[1].Expires.Unix()) || values[stale] != 0 {
		t.Errorf("before an exchange the metrics are %v", values)
	}
	o.Upgrade(t)
	if got, want := o.Scrape(t)[fmt.Sprintf(ends, "server")], endpoint.Certificate().NotAfter.Unix(); got != float64(want) {
		t.Errorf("the server's certificate ends at %v, not %v", got, want)
	}
	if len(status.Secrets) != 2 || status.Secrets[0].Field != "client_secret" || status.Secrets[0].Expires != nil ||
		status.Secrets[1].Field != "transport" || time.Until(*status.Secrets[1].Expires) > time.Hour {
		t.Fatalf("the status is %+v", status)
	}
	if err := os.Remove(filepath.Join(dir, "secret")); err != nil {
		t.Fatal(err)
	}
	caddytest.Eventually(t, "the status tells that a file is gone", func() bool {
		status := caddytest.OnlyEndpoint(t, o)
		return status.Secrets[0].Stale && status.Secrets[0].ReadSecondsAgo > 0 && o.Scrape(t)[stale] == 1
	})
}

func TestItIsReadyWhenAHandlerRunsWhateverTheTokenEndpointDoes(t *testing.T) {
	o := caddytest.Operate(t, "smapi_upgrade http://127.0.0.1:1/token {\nclient_id id\nclient_auth none\n}")
	if got := o.Admin.Get(t, "/smapi_upgrade/ready"); got.Status != http.StatusOK || got.Body != `{"ready":true}`+"\n" {
		t.Errorf("%+v", got)
	}
	o = caddytest.Operate(t, "respond ok")
	if got := o.Admin.Get(t, "/smapi_upgrade/ready"); got.Status != http.StatusServiceUnavailable {
		t.Errorf("without a handler: %+v", got)
	}
	if got := o.Admin.Get(t, "/smapi_upgrade/status"); got.Status != http.StatusOK || got.Body != `{"endpoints":[]}`+"\n" {
		t.Errorf("without a handler: %+v", got)
	}
	r, err := http.NewRequest(http.MethodPost, o.Admin.URL+"/smapi_upgrade/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.Do(t, r); got.Status != http.StatusMethodNotAllowed {
		t.Errorf("a POST: %+v", got)
	}
}

var scrapeFile = flag.String("scrape", "", "write our metrics to this `file`, for promtool")

func TestMetricsAreNamedAsPrometheusWantsThem(t *testing.T) {
	o := caddytest.Operate(t, caddytest.WithVault(caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)))
	o.Upgrade(t)
	caddymodule.Forget(t.Context())
	var ours strings.Builder
	for line := range strings.Lines(o.Admin.Get(t, "/metrics").Body) {
		if strings.Contains(line, "caddy_smapi_upgrade_") {
			ours.WriteString(line)
		}
	}
	if *scrapeFile != "" {
		caddytest.Write(t, *scrapeFile, ours.String())
	}
	problems, err := promlint.New(strings.NewReader(ours.String())).Lint()
	if err != nil || len(problems) > 0 || ours.Len() == 0 {
		t.Errorf("%v %v in\n%s", err, problems, ours.String())
	}
}

var metricName = regexp.MustCompile(`caddy_smapi_upgrade_[a-z0-9_]+:?`) // with a colon it is a recording rule

func TestTheKitUsesMetricsThatThereAre(t *testing.T) {
	o := caddytest.Operate(t, caddytest.WithVault(caddytest.Rotate(t, 3600), caddytest.OldService(t), caddytest.VaultFile(t)))
	o.Upgrade(t)
	caddymodule.Forget(t.Context())
	exists := map[string]bool{"caddy_smapi_upgrade_certificate_end_timestamp_seconds": true} // which only TLS has
	for name := range o.Scrape(t) {
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
	o := caddytest.Operate(t, caddytest.Directive(caddytest.Serve(t, caddytest.Says(503, "")), caddytest.OldService(t)))
	got := o.Upgrade(t)
	o.Call(t, "getMetadata", "forward-get-metadata.xml")
	code := strings.TrimPrefix(caddytest.Reference.FindString(got.Body), "reference ")
	var ours, others int
	for line := range strings.Lines(o.Log(t)) {
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
	s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)))
	digest := regexp.MustCompile(`"household":"([0-9a-f]{16})"`)
	s.Post(t, caddytest.Account(t, "first"))
	s.Post(t, caddytest.Account(t, "second"))
	s.Post(t, bytes.Replace(caddytest.Account(t, "third"), []byte("Sonos_abc123"), []byte("Sonos_other"), 1))
	found := digest.FindAllStringSubmatch(s.Log(t), -1)
	if len(found) != 3 || found[0][1] != found[1][1] || found[0][1] == found[2][1] {
		t.Errorf("the digests are %v", found)
	}
}

func TestAStormDoesNotFloodTheLog(t *testing.T) {
	s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t), "mode reauthorize"))
	const calls = 1000
	client := caddytest.Player(t)
	var all sync.WaitGroup
	begin := time.Now()
	for worker := range 4 {
		all.Go(func() {
			for i := range calls / 4 {
				if _, err := caddytest.Ask(t, client, s, caddytest.Account(t, fmt.Sprint(worker, "-", i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	most := (100 + calls/100) * int(2+time.Since(begin)/time.Second)
	if n := len(answeredLines(s.Log(t))); n < 100 || n > most {
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
	endpoint, old := caddytest.Serve(t, caddytest.Says(400, `{"error":"invalid_grant"}`)), caddytest.OldService(t)
	s := caddytest.Run(t, "tracing {\nspan request\n}\n"+caddytest.Directive(endpoint, old))
	s.Upgrade(t)
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
	endpoint := caddytest.Serve(t, caddytest.IssuesTokens)
	s := caddytest.Run(t, caddytest.Directive(endpoint, caddytest.OldService(t)))
	r := s.Request(t, caddytest.File(t, "requests", "upgrade.xml"))
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	caddytest.CheckAnswer(t, s.Do(t, r), "upgraded.xml")
	if _, header := form(t, endpoint); header.Get("Traceparent") != "" {
		t.Errorf("the token endpoint gets %q", header.Get("Traceparent"))
	}
}

func TestAKeyInTheQueryOfTheTokenEndpointIsNotShown(t *testing.T) {
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "60")
		caddytest.Says(http.StatusServiceUnavailable, "")(w, r)
	})
	t.Setenv("SMAPI_TEST_KEY", "marker-key")
	o := caddytest.Operate(t, fmt.Sprintf("smapi_upgrade %s/token?key={env.SMAPI_TEST_KEY} {\nclient_id id\nclient_auth none\n}", endpoint.URL))
	o.Upgrade(t)
	if asked := endpoint.Asked(); asked[0].URL.RawQuery != "key=marker-key" {
		t.Errorf("it was asked by %q", asked[0].URL.RawQuery)
	}
	caddytest.WaitForLog(t, o.Site, "holding back")
	checkNoMarker(t, "the log", o.Log(t))
	checkNoMarker(t, "the status", o.Admin.Get(t, "/smapi_upgrade/status").Body)
}

func TestWhatWasNotAskedTookNoTime(t *testing.T) {
	const durations = `caddy_smapi_upgrade_exchange_duration_seconds_count{outcome="unavailable"}`
	endpoint := caddytest.Serve(t, caddytest.Says(http.StatusInternalServerError, ``))
	o := caddytest.Operate(t, caddytest.Directive(endpoint, caddytest.OldService(t)))
	before := o.Scrape(t)[durations]
	for i := range 50 { // of which the breaker turns most away
		o.Post(t, caddytest.Account(t, fmt.Sprint("account", i)))
	}
	if took, asked := o.Scrape(t)[durations]-before, len(endpoint.Asked()); took != float64(asked) || asked == 50 {
		t.Errorf("%v durations of %d exchanges", took, asked)
	}
}

// A stranger who blows the fuse with made-up accounts harms nobody: who is accepted is served, and who is refused is asked
// again later. The operator sees it.
func TestABlownFuseIsSeenAndHarmsNobody(t *testing.T) {
	var failed atomic.Int32
	o := caddytest.Operate(t, caddytest.Directive(caddytest.Serve(t, caddytest.Passwords(&failed)), caddytest.OldService(t)))
	for i := range 30 {
		a := o.Post(t, caddytest.Tries(t, "made-up-"+strconv.Itoa(i), "wrong", "home"))
		if i < 19 {
			caddytest.CheckAnswer(t, a, "reauthorize.xml")
		} else {
			caddytest.CheckAnswer(t, a, "service-unavailable.xml")
		}
	}
	if got := caddytest.OnlyEndpoint(t, o); !got.LoginFuse.Blown || got.LoginFuse.Percent != 50 || got.RefreshFuse.Blown || got.LoginFuse.Tried != 10 ||
		got.LoginFuse.Blew == nil || *got.LoginFuse.Blew != (caddytest.FuseTries{Tried: 20, Rejected: 20, OAuthError: "invalid_grant"}) {
		t.Errorf("the status is %+v", got)
	}
	caddytest.WaitForLog(t, o.Site, "fuse blown: most accounts are rejected")
	if n := o.Scrape(t)["caddy_smapi_upgrade_fuses_blown"]; n != 1 {
		t.Errorf("the metric is %v", n)
	}
	for i := range 5 {
		caddytest.CheckAnswer(t, o.Post(t, caddytest.Tries(t, "good-"+strconv.Itoa(i), "right", "home")), "upgraded.xml")
	}
	for i := range 30 {
		caddytest.CheckAnswer(t, o.Post(t, caddytest.Tries(t, "more-"+strconv.Itoa(i), "right", "home")), "upgraded.xml")
	}
	caddytest.WaitForLog(t, o.Site, "fuse is whole again")
	if got := caddytest.OnlyEndpoint(t, o); got.LoginFuse.Blown || got.LoginFuse.Blew != nil {
		t.Errorf("the status is %+v", got)
	}
}
