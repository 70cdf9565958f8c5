package vault

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal/sealtest"
)

var update = flag.Bool("update", false, "write the golden record anew")

// A record that version 1 wrote is opened by every later one. The files are as an operator would have them.
func TestARecordOfVersion1IsOpened(t *testing.T) {
	root := filepath.Join("testdata", "version1")
	if *update {
		writeGolden(t, root)
	}
	text, err := os.ReadFile(filepath.Join(root, "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	keys := parseKeys(t, text)
	const handle = "smv1BLPxTHRr-KI6DkmSTgOjZKQ6QP3m4zIjqIK4jHEe5bk"
	m := keys.Namers()[0].Record(home, seal.OfAccount, account)
	if m.Handle() != handle {
		t.Errorf("the handle is %s", m.Handle())
	}
	v := open(t, keys, &certmagic.FileStorage{Path: root})
	got, err := v.record(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	want := golden(m)
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if found, err := v.lookUp(t.Context(), "old-refresh-token"); err != nil || found.Home != m.Home {
		t.Errorf("by an old token: %v", err)
	}
}

func golden(m seal.Name) *record {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &record{
		Version: 1, Name: m.Text(), Generation: 7, Household: home,
		AccessToken: "access-token", RefreshToken: "refresh-token", Expires: at.Add(time.Hour),
		Created: at.Add(-time.Hour), Refreshed: at, Used: at,
		Source: "upgrade", Dead: true, Fields: map[string]string{"username": "u"},
	}
}

func writeGolden(t *testing.T, root string) {
	text, err := seal.GenerateKeys(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, s := parseKeys(t, text), &certmagic.FileStorage{Path: root}
	_ = os.RemoveAll(root)
	m := keys.Namers()[0].Record(home, seal.OfAccount, account)
	old := keys.Namers()[0].Record(home, seal.OfToken, "old-refresh-token")
	for key, content := range map[string]any{
		m.Key():     golden(m),
		old.Alias(): alias{Version: 1, Alias: old.Alias(), Name: old.Text()},
	} {
		if err := s.Store(t.Context(), key, mustSeal(t, keys, content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "keys.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("the handle is %s", m.Handle())
}

func TestInFilesAsEverywhere(t *testing.T) {
	t.Parallel()
	root, keys, oauth := t.TempDir(), sealtest.NewKeys(t), newServer()
	oauth.takes = 50 * time.Millisecond
	instances := [3]*Vault{}
	for i := range instances {
		instances[i] = open(t, keys, &certmagic.FileStorage{Path: root})
	}
	pair := instances[0].Upgraded(call(t), home, account, oauth.login("a"))
	old := oauth.login("b")
	var wait sync.WaitGroup
	for i := range 12 {
		wait.Go(func() {
			for _, key := range []string{pair.PrivateKey, old.Refresh} {
				presented := pair.AuthToken
				if key == old.Refresh {
					presented = old.Access
				}
				got, err := instances[i%3].Refresh(call(t), home, key, presented, oauth.ask)
				if err != nil || got.AuthToken == presented {
					t.Errorf("got %+v, %v", got, err)
				}
			}
		})
	}
	wait.Wait()
	if oauth.times() != 2 {
		t.Errorf("asked %d times", oauth.times())
	}
	if err := instances[0].Failed(t.Context(), account, Failure{At: time.Now(), Proof: "p", Network: "n"}, time.Time{}); err != nil {
		t.Error(err)
	}
	if got, err := instances[1].Failures(t.Context(), account, time.Time{}); len(got) != 1 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if f, err := instances[1].Forget(t.Context()); err != nil || !f.Done {
		t.Errorf("got %+v, %v", f, err)
	}
	touch(t, root)
	if got, err := instances[2].Summarize(t.Context(), true); err != nil || got.Records != 2 || got.Written[0] != 2 || got.Unreadable != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	files := 0
	err := filepath.WalkDir(filepath.Join(root, "smapi_upgrade"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil || files < 6 {
		t.Errorf("%d files, %v", files, err)
	}
	if n, err := instances[0].ForgetAccount(t.Context(), account, account); n != 1 || err != nil {
		t.Errorf("%d of the account, %v", n, err)
	}
	if n, err := instances[0].ForgetHousehold(t.Context(), home); n != 1 || err != nil {
		t.Errorf("%d of the home, %v", n, err)
	}
	if got, err := instances[2].Summarize(t.Context(), false); err != nil || got.Records != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// touch has everything in a folder written just now by our clock, which need not be that of the file system.
func touch(t *testing.T, root string) {
	t.Helper()
	now := time.Now()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, now, now)
	})
	if err != nil {
		t.Fatal(err)
	}
}
