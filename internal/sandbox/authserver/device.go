package authserver

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-oauth2/oauth2/v4"
	"github.com/go-oauth2/oauth2/v4/server"
)

// The paths of the device grant (RFC 8628), which go-oauth2 does not have. Every other path is the token endpoint.
const (
	DevicePath = "/device"
	PagePath   = "/sign-in"
)

const (
	deviceGrant    = "urn:ietf:params:oauth:grant-type:device_code"
	deviceLife     = 10 * time.Minute
	deviceInterval = time.Second // shorter than usual, for who watches
)

// devices are the listeners who sign in.
type devices struct {
	server *server.Server
	login  func(username, password string) bool
	mu     sync.Mutex
	all    []*device
}

type device struct {
	code, userCode string
	expires, asked time.Time
	user           string // who has signed in
	denied         bool
}

// find returns the device of which something is so, nil where there is none.
func (d *devices) find(so func(*device) bool) *device {
	for _, one := range d.all {
		if so(one) {
			return one
		}
	}
	return nil
}

// authorize answers a device authorization request.
func (d *devices) authorize(w http.ResponseWriter, r *http.Request) {
	if !d.authenticated(r) {
		answerJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	text := rand.Text()
	one := &device{code: rand.Text(), userCode: text[:4] + "-" + text[4:8], expires: time.Now().Add(deviceLife)}
	d.mu.Lock()
	d.all = append(slices.DeleteFunc(d.all, func(old *device) bool { return time.Now().After(old.expires) }), one)
	d.mu.Unlock()
	page := url.URL{Scheme: "http", Host: r.Host, Path: PagePath}
	complete := page
	complete.RawQuery = url.Values{"user_code": {one.userCode}}.Encode()
	answerJSON(w, http.StatusOK, map[string]any{
		"device_code": one.code, "user_code": one.userCode,
		"verification_uri": page.String(), "verification_uri_complete": complete.String(),
		"expires_in": int(deviceLife / time.Second), "interval": int(deviceInterval / time.Second),
	})
}

func (d *devices) authenticated(r *http.Request) bool {
	id, secret, err := server.ClientBasicHandler(r)
	if err != nil {
		return false
	}
	client, err := d.server.Manager.GetClient(r.Context(), id)
	return err == nil && client.GetSecret() == secret
}

// token answers a poll.
func (d *devices) token(w http.ResponseWriter, r *http.Request) {
	if !d.authenticated(r) {
		answerJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	user, refusal := d.poll(r.PostFormValue("device_code"))
	if refusal != "" {
		answerJSON(w, http.StatusBadRequest, map[string]any{"error": refusal})
		return
	}
	id, secret, _ := server.ClientBasicHandler(r)
	issued, err := d.server.Manager.GenerateAccessToken(context.WithoutCancel(r.Context()), oauth2.PasswordCredentials,
		&oauth2.TokenGenerateRequest{ClientID: id, ClientSecret: secret, UserID: user, Request: r})
	if err != nil {
		answerJSON(w, http.StatusInternalServerError, map[string]any{"error": "server_error"})
		return
	}
	answerJSON(w, http.StatusOK, d.server.GetTokenData(issued))
}

// poll returns who has signed in, once, or why nobody has.
func (d *devices) poll(code string) (user, refusal string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	one, now := d.find(func(one *device) bool { return one.code == code }), time.Now()
	switch {
	case one == nil:
		return "", "invalid_grant"
	case one.denied:
		return "", "access_denied"
	case now.After(one.expires):
		return "", "expired_token"
	case one.user != "":
		one.code = "" // it is used up
		return one.user, ""
	case now.Sub(one.asked) < deviceInterval:
		return "", "slow_down"
	}
	one.asked = now
	return "", "authorization_pending"
}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

type pageContent struct{ Code, Wrong, Done string }

// sign shows the page, and takes what a listener fills in.
func (d *devices) sign(w http.ResponseWriter, r *http.Request) {
	content := pageContent{Code: r.FormValue("user_code")}
	if r.Method == http.MethodPost {
		content.Wrong, content.Done = d.decide(strings.ToUpper(strings.TrimSpace(content.Code)), r.PostFormValue("username"), r.PostFormValue("password"), r.PostFormValue("deny") != "")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = page.Execute(w, content) // to a browser that may have gone
}

func (d *devices) decide(code, username, password string, deny bool) (wrong, done string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	one := d.find(func(one *device) bool {
		return one.userCode == code && one.user == "" && !one.denied && time.Now().Before(one.expires)
	})
	switch {
	case one == nil:
		return "There is no such code, or it has been used. Begin again in the Sonos app.", ""
	case deny:
		one.denied = true
		return "", "You have refused. Nothing was signed in."
	case !d.login(username, password):
		return "The user name or the password is wrong.", ""
	}
	one.user = username
	return "", "You are signed in. Go back to the Sonos app."
}

func answerJSON(w http.ResponseWriter, status int, content map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(content) // to a client that may have gone
}
