package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
)

// startCaddy runs a Caddyfile in this process, with SMAPI_SITE on a free loopback port and Caddy's own files
// in dir. Admin is the address of the admin API.
func startCaddy(file, dir string, env map[string]string) (url, admin string, stop func(), err error) {
	site, err := freePort()
	if err != nil {
		return "", "", nil, err
	}
	if admin, err = freePort(); err != nil {
		return "", "", nil, err
	}
	url = "http://" + site
	env["SMAPI_SITE"] = url
	env["XDG_DATA_HOME"] = dir
	for name, value := range env {
		if err := os.Setenv(name, value); err != nil {
			return "", "", nil, err
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", nil, err
	}
	text = withSignIn(text)
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": file})
	if err != nil {
		return "", "", nil, err
	}
	if len(warnings) > 0 {
		return "", "", nil, fmt.Errorf("%s: %v", file, warnings)
	}
	config, err := confine(adapted, site, admin, dir)
	if err != nil {
		return "", "", nil, err
	}
	caddy.ConfigAutosavePath = filepath.Join(dir, "autosave.json")
	if err := caddy.Load(config, true); err != nil {
		return "", "", nil, err
	}
	return url, admin, func() { _ = caddy.Stop() }, nil
}

var commentedSignIn = regexp.MustCompile(`(?m)^\t\t#\tsign_in \{\n(?:\t\t#\t.*\n)+`)

// withSignIn is a Caddyfile in which signing in is turned on, if it is there as a comment.
func withSignIn(text []byte) []byte {
	return commentedSignIn.ReplaceAllFunc(text, func(section []byte) []byte {
		return bytes.ReplaceAll(section, []byte("\t\t#\t"), []byte("\t\t"))
	})
}

// confine keeps the servers of a configuration on loopback, where a Caddyfile's site address means all
// interfaces, and Caddy's files and logs out of the way. Its admin endpoint is on loopback too, where there may be no folder
// for a socket.
func confine(adapted []byte, address, admin, dir string) ([]byte, error) {
	var config map[string]json.RawMessage
	if err := json.Unmarshal(adapted, &config); err != nil {
		return nil, err
	}
	var apps map[string]map[string]any
	if err := json.Unmarshal(config["apps"], &apps); err != nil {
		return nil, err
	}
	servers, ok := apps["http"]["servers"].(map[string]any)
	if !ok || len(servers) != 1 {
		return nil, fmt.Errorf("the sandbox runs a Caddyfile with one site")
	}
	for _, server := range servers {
		server.(map[string]any)["listen"] = []string{address}
	}
	parts := map[string]any{
		"apps":    apps,
		"admin":   map[string]string{"listen": admin},
		"storage": map[string]string{"module": "file_system", "root": dir},
		"logging": map[string]any{"logs": map[string]any{
			"default": map[string]any{"level": "ERROR"},
			"calls": map[string]any{
				"include": []string{"http.handlers.smapi_upgrade"},
				"writer":  map[string]string{"output": "file", "filename": logFile(dir)},
			},
		}},
	}
	for name, part := range config {
		if parts[name] == nil {
			parts[name] = part
		}
	}
	return json.Marshal(parts)
}

// logFile is where the module's log lines are.
func logFile(dir string) string { return filepath.Join(dir, "smapi_upgrade.log") }

// freePort returns a loopback address that nothing listens on.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
