package caddymodule_test

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

// behind is what operators put between the handler and the old service: OLD is its address, AUTH that of a server which has
// nothing against it, DEAD one where nobody is.
var behind = map[string]string{
	"a proxy": "reverse_proxy OLD",
	"handle": `handle /other* {
			respond "another service" 404
		}
		handle /smapi* {
			reverse_proxy OLD
		}
		handle {
			respond "nobody" 404
		}`,
	"handle_path": `handle_path /smapi* {
			rewrite * /soap{uri}
			reverse_proxy OLD
		}`,
	"groups in groups": `handle /smapi* {
			handle /smapi/other* {
				respond "another service" 404
			}
			handle {
				route {
					@soap header_regexp action SOAPAction "#(get)?(.*)$"
					rewrite @soap /by/{re.action.2}?{query}
					reverse_proxy OLD
				}
			}
		}`,
	"placeholders": `route {
			request_header X-Players ^a b
			request_header +X-Players c
			uri replace smapi soap
			vars service at{http.request.uri.path}
			map {http.request.uri.path} {folder} {
				/soap folder-of-soap
				default none
			}
			rewrite * /old{uri}
			reverse_proxy OLD {
				header_up X-Seen "{uri} {http.request.orig_uri} {http.request.header.X-Players} {vars.service} {folder} {http.request.method}"
				header_up Host {vars.service}
			}
		}`,
	"an old service that is found by trying": `reverse_proxy DEAD OLD {
			lb_policy first
			lb_try_duration 5s
			lb_try_interval 10ms
			fail_duration 1m
		}`,
	"buffers and limits": `route {
			request_body {
				max_size 10KB
			}
			reverse_proxy OLD {
				request_buffers 4KB
				response_buffers 4KB
				flush_interval -1
			}
		}`,
	"answers that are changed": `route {
			encode {
				gzip
				minimum_length 1
				match header Content-Type text/*
			}
			header +X-Behind 1
			header >X-Old 1 2
			reverse_proxy OLD {
				@ok status 2xx
				handle_response @ok {
					copy_response_headers
					copy_response
				}
			}
		}`,
	"somebody who is asked first": `route {
			forward_auth AUTH {
				uri /may-i?{query}
				copy_headers X-Old
			}
			reverse_proxy OLD
		}`,
}

// What comes of a call does not depend on whose it is, nor on how often it has to be made: one that comes alone is one pass
// through the handlers behind ours; with the beginning of a session, and a session that is forgotten, there are up to three.
func TestTheHandlersBehindMeetACallOfAnUpgradedHomeAsANativeOne(t *testing.T) {
	for name, handlers := range behind {
		t.Run(name, func(t *testing.T) {
			endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
			site, _, _ := strings.Cut(withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id"), "reverse_proxy")
			auth := caddytest.Serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Old", "may") })
			handlers = strings.NewReplacer("OLD", old.URL, "AUTH", auth.URL, "DEAD", caddytest.DeadAddress(t)).Replace(handlers)
			s := caddytest.Run(t, "log_append length {http.request.header.Content-Length}\n"+site+handlers)
			authToken, key := s.UpgradeOf(t, "session_id")
			calls := 1

			call := func(account string) (heard []string, got caddytest.Answer) {
				t.Helper()
				old.Asked()
				r := s.Browsing(t, "getLastUpdate", account, "")
				r.URL.RawQuery = "a=b"
				r.Header.Set("X-Players", "aa")
				r.Header.Set("Accept-Encoding", "gzip")
				length := fmt.Sprintf(`"length":"%d"`, r.ContentLength)
				got = s.Do(t, r)
				got.Header.Del("Date")
				calls++
				var log string
				caddytest.Eventually(t, "the call is logged", func() bool {
					log = s.Log(t)
					return strings.Count(log, "handled request") == calls
				})
				if !strings.Contains(log[strings.LastIndex(log, "handled request"):], length) {
					t.Errorf("who stands in front sees another length than %s", length)
				}
				for _, r := range old.Asked() {
					if strings.Contains(r.Header.Get("SOAPAction"), "getLastUpdate") {
						heard = append(heard, fmt.Sprint(r.Method, r.Host, r.URL, shown(r.Header), r.Text))
					}
				}
				return heard, got
			}
			session := func() (all string) {
				old.With(func() { all = strings.Join(slices.Collect(maps.Keys(old.Sessions)), " and ") })
				return "<sessionId>" + all + "</sessionId>"
			}
			for _, again := range []int{1, 2} { // passes of the call
				heard, got := call("<loginToken><token>" + authToken + "</token><key>" + key + "</key></loginToken>")
				want, native := call(session())
				if len(want) == 0 || len(heard) != again*len(want) || !slices.Equal(heard[len(heard)-len(want):], want) {
					t.Errorf("the old service heard\n%s\nand natively\n%s", strings.Join(heard, "\n"), strings.Join(want, "\n"))
				}
				if got.Status != 200 || !reflect.DeepEqual(got, native) {
					t.Errorf("got\n%+v\nand natively\n%+v", got, native)
				}
				old.With(func() { clear(old.Sessions) })
			}
		})
	}
}

func TestNoPlaceholderShowsTheOldCredentials(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
	site, _, _ := strings.Cut(withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id"), "reverse_proxy")
	s := caddytest.Run(t, site+"route {\nrequest_header X-Body \"body: {http.request.body}{http.request.body_base64}\"\nreverse_proxy "+old.URL+"\n}")
	authToken, key := s.UpgradeOf(t, "session_id")
	for range 2 { // with the beginning of a session, and with a session
		checkServed(t, s.Browse(t, "getLastUpdate", authToken, key))
		old.With(func() { clear(old.Sessions) })
	}
	for _, r := range old.Asked() {
		if got := r.Header.Get("X-Body"); got != "body:" {
			t.Errorf("%s of %s", got, r.Header.Get("SOAPAction"))
		}
	}
}

// shown is a header in one order.
func shown(header http.Header) (all string) {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		all += fmt.Sprintf(" %s=%q", name, header[name])
	}
	return all
}
