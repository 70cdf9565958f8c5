package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
	"github.com/smapi-tools/caddy-smapi-upgrade/internal/loopback"
)

// sandboxed is a Caddy in this process, of a Caddyfile with SMAPI_SITE on a free loopback port, and with its own files in dir.
type sandboxed struct {
	file, dir  string
	url, admin string
}

// newCaddy sets the environment of a Caddyfile. Run runs it.
func newCaddy(file, dir string, env map[string]string) (*sandboxed, error) {
	c := &sandboxed{file: file, dir: dir, url: "http://" + loopback.FreeAddress(), admin: loopback.FreeAddress()}
	env["SMAPI_SITE"] = c.url
	env["XDG_DATA_HOME"] = dir
	for name, value := range env {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	caddy.ConfigAutosavePath = filepath.Join(dir, "autosave.json")
	return c, nil
}

// run runs it, or reloads it, with these options turned on, where they are there as comments.
func (c *sandboxed) run(options ...string) error {
	text, err := os.ReadFile(c.file)
	if err != nil {
		return err
	}
	for _, option := range options {
		text = turnOn(text, option)
	}
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": c.file})
	if err != nil {
		return err
	}
	if len(warnings) > 0 {
		return fmt.Errorf("%s: %v", c.file, warnings)
	}
	config, err := confine(adapted, strings.TrimPrefix(c.url, "http://"), c.admin, c.dir)
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

// turnOn takes the comment off an option, and off its block.
func turnOn(text []byte, option string) []byte {
	commented := regexp.MustCompile(`(?m)^\t\t#\t` + option + `\b(?:.*\{\n(?:\t\t#\t\t.*\n)+\t\t#\t\}|.*)$`)
	return commented.ReplaceAllFunc(text, func(section []byte) []byte {
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
