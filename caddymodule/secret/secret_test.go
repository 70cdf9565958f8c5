package secret

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const (
	unreadable = "cannot read the file of a secret; the last good value stays in force"
	readAgain  = "a secret was read again"
	oddly      = "a secret may have blanks or quotes around it by mistake; it is used as it is"
)

// soon is when a change has certainly been seen.
const soon = 2 * DefaultInterval

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func observed() (Config, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return Config{Field: "client_secret", Logger: zap.New(core)}, logs
}

// told counts the lines of a log with this message.
func told(logs *observer.ObservedLogs, message string) int { return logs.FilterMessage(message).Len() }

// follows is a text of one file that has this content at first, and that file.
func follows(t *testing.T, content string) (v *Value[string], path string, logs *observer.ObservedLogs) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "secret")
	write(t, path, content)
	config, logs := observed()
	v, err := Text(config, "{file."+path+"}", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v, path, logs
}

func check(t *testing.T, when string, v *Value[string], want string, stale bool) {
	t.Helper()
	if got := v.Get(); got != want {
		t.Errorf("%s it is %q, want %q", when, got, want)
	}
	if got := v.Status(time.Now()); got.Stale != stale || got.Field != "client_secret" {
		t.Errorf("%s the status is %+v", when, got)
	}
}

// waysToRewrite are how secrets get into their files: in place, by another file in their place as editors and
// deployments do, or behind a symbolic link as Kubernetes does.
var waysToRewrite = map[string]func(t testing.TB, path, content string){
	"in place": write,
	"by another file": func(t testing.TB, path, content string) {
		write(t, path+".new", content)
		if err := os.Rename(path+".new", path); err != nil {
			t.Error(err)
		}
	},
	"behind a link": func(t testing.TB, path, content string) {
		target := filepath.Join(t.TempDir(), "secret")
		write(t, target, content)
		if err := os.Symlink(target, path+".new"); err != nil {
			t.Error(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Error(err)
		}
	},
	"of the same size and time": func(t testing.TB, path, content string) {
		write(t, path, content)
		if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Error(err)
		}
	},
}

func TestAChangeIsInForceASecondLaterHoweverTheFileIsReplaced(t *testing.T) {
	for way, rewrite := range waysToRewrite {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, path, logs := follows(t, "secret-0\n")
				for n := 1; n <= 5; n++ {
					rewrite(t, path, fmt.Sprintf("secret-%d\n", n))
					time.Sleep(DefaultInterval + DefaultInterval/5)
					check(t, "after a change", v, fmt.Sprintf("secret-%d", n), false)
				}
				if got := v.Status(time.Now()).ReadSecondsAgo; got > 1 {
					t.Errorf("it was read %v s ago", got)
				}
				if told(logs, readAgain) != 5 || told(logs, unreadable) != 0 {
					t.Errorf("the log is %v", logs.All())
				}
			})
		})
	}
}

func TestAFileThatIsBeingWrittenIsNeitherUsedNorComplainedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		config, logs := observed()
		config.read = func(string) ([]byte, error) {
			switch n := reads.Add(1); {
			case n > 20:
				return []byte("new"), nil
			case n%2 == 0:
				return []byte("new"[:n%3]), nil
			}
			return []byte("old"), nil
		}
		v, err := Text(config, "{file.x}", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		for reads.Load() < 20 {
			time.Sleep(DefaultInterval / 20)
			check(t, "while it is written", v, "old", false)
		}
		if logs.Len() != 0 {
			t.Errorf("the log is %v", logs.All())
		}
		time.Sleep(soon)
		check(t, "written", v, "new", false)
	})
}

func TestTheLastGoodValueStaysInForceAndTheLogTellsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, path, logs := follows(t, "good")
		for _, bad := range []string{"", "\xFF\xFEm\x00", "mar\xFFker", "marker\tmarker", "marker\nmarker", strings.Repeat("m", maxSize+1)} {
			write(t, path, bad)
			time.Sleep(soon)
			check(t, fmt.Sprintf("with a file of %d bytes", len(bad)), v, "good", true)
		}
		remove(t, path)
		time.Sleep(soon)
		check(t, "without a file", v, "good", true)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(soon)
		check(t, "with a folder", v, "good", true)
		if n := told(logs, unreadable); n != 1 {
			t.Errorf("the log tells %d times", n)
		}
		remove(t, path)
		write(t, path, "good")
		time.Sleep(soon)
		check(t, "with the file back", v, "good", false)
		if n := told(logs, readAgain); n != 1 {
			t.Errorf("the log tells %d times that it is back", n)
		}
		remove(t, path)
		time.Sleep(soon)
		check(t, "gone again", v, "good", true)
		if n := told(logs, unreadable); n != 2 {
			t.Errorf("the log tells %d times", n)
		}
		for _, entry := range logs.All() {
			if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "marker") || !strings.Contains(text, path) {
				t.Errorf("the log has %s", text)
			}
		}
	})
}

func TestAFileSystemThatHangsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config, logs := observed()
		var answers atomic.Pointer[chan struct{}]
		hang := func() (release func()) {
			c := make(chan struct{})
			answers.Store(&c)
			return func() { close(c) }
		}
		hang()()
		config.read = func(string) ([]byte, error) {
			<-*answers.Load()
			return []byte("good"), nil
		}
		v, err := Text(config, "{file.x}", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		release := hang()
		time.Sleep(soon)
		check(t, "at first", v, "good", false)
		time.Sleep(maxWait)
		check(t, "after a while", v, "good", true)
		time.Sleep(time.Hour)
		if n := told(logs, unreadable); n != 1 {
			t.Errorf("the log tells %d times", n)
		}
		release()
		time.Sleep(soon)
		check(t, "when it answers again", v, "good", false)

		defer hang()() // or the look would be left over
		time.Sleep(DefaultInterval)
		v.Close()
		v.Close()
		time.Sleep(maxWait)
		check(t, "closed", v, "good", false)
		if _, err := Text(config, "{file.x}", nil); err == nil || !strings.Contains(err.Error(), "the file x cannot be read: no answer") {
			t.Errorf("the first read ends with %v", err)
		}
	})
}

func TestTheFirstReadHasToSucceed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), "\r\n")
	write(t, filepath.Join(dir, "two"), "marker\nmarker")
	for file, says := range map[string]string{
		"nowhere": "cannot be read: ",
		"empty":   "is empty",
		"two":     "has a tab, a line end or another control character within; it has to be one line of text",
	} {
		path := filepath.Join(dir, file)
		v, err := Text(Config{}, "a{file."+path+"}b", nil)
		if v != nil || err == nil || !strings.HasPrefix(err.Error(), "the file "+path+" "+says) || strings.Contains(err.Error(), "marker") {
			t.Errorf("%s: %v", file, err)
		}
		if file == "nowhere" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v does not wrap its cause", err)
		}
	}
}

func TestWhatMayBeAMistakeIsToldOnceForEachChange(t *testing.T) {
	t.Setenv("SMAPI_TEST_QUOTED", `'a'`)
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "secret")
		write(t, path, " b")
		config, logs := observed()
		v, err := Text(config, "{env.SMAPI_TEST_QUOTED}{file."+path+"}", environment)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		time.Sleep(time.Minute)
		check(t, "at first", v, "'a' b", false)
		if n := told(logs, oddly); n != 2 {
			t.Errorf("the log tells %d times: %v", n, logs.All())
		}
		write(t, path, `"b"`)
		time.Sleep(time.Minute)
		check(t, "changed", v, `'a'"b"`, false)
		if n := told(logs, oddly); n != 3 {
			t.Errorf("the log tells %d times: %v", n, logs.All())
		}
		write(t, path, `b`)
		time.Sleep(time.Minute)
		if n := told(logs, oddly); n != 3 {
			t.Errorf("the log tells %d times: %v", n, logs.All())
		}
	})
}

func TestAFileIsParsedWhenItChangesAndOnlyThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, parsed, invalid := filepath.Join(t.TempDir(), "key"), 0, errors.New("is no key")
		write(t, path, "\uFEFFa\nb\n")
		config, logs := observed()
		v, err := File(config, path, func(content []byte) (string, error) {
			parsed++
			if string(content) == "invalid" {
				return "", invalid
			}
			return string(content), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		check(t, "at first", v, "a\nb\n", false)
		write(t, path, "invalid")
		time.Sleep(time.Minute)
		check(t, "invalid", v, "a\nb\n", true)
		if entries := logs.FilterMessage(unreadable).All(); len(entries) != 1 || entries[0].ContextMap()["cause"] != "the file "+path+" is no key" {
			t.Errorf("the log is %v", logs.All())
		}
		write(t, path, "c\n")
		time.Sleep(time.Minute)
		check(t, "changed", v, "c\n", false)
		if parsed != 3 {
			t.Errorf("it was parsed %d times", parsed)
		}
	})
}

// certificate is a self-signed one in PEM, told by its serial number.
func certificate(t testing.TB, serial int64) (cert, key string) {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Unix(serial, 0)}
	public, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

func TestACertificateAndItsKeyChangeTogether(t *testing.T) {
	certs, keys := [3]string{}, [3]string{}
	for i := range certs {
		certs[i], keys[i] = certificate(t, int64(i))
	}
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		certFile, keyFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
		write(t, certFile, "\uFEFF"+certs[1])
		write(t, keyFile, keys[1])
		config, logs := observed()
		v, err := Pair(config, certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		check := func(when string, serial int64, stale bool) {
			t.Helper()
			if got := v.Get().Leaf.SerialNumber.Int64(); got != serial {
				t.Errorf("%s it is number %d, want %d", when, got, serial)
			}
			if s := v.Status(time.Now()); s.Expires.Unix() != serial || s.Stale != stale {
				t.Errorf("%s the status is %+v", when, s)
			}
		}
		check("at first", 1, false)
		write(t, certFile, certs[2])
		time.Sleep(soon)
		check("with another key", 1, true)
		write(t, keyFile, keys[2])
		time.Sleep(soon)
		check("with its key", 2, false)
		write(t, keyFile, certs[2])
		time.Sleep(soon)
		check("with no key", 2, true)
		if n := told(logs, unreadable); n != 2 {
			t.Errorf("the log is %v", logs.All())
		}
	})
	dir := t.TempDir()
	path := func(name, content string) string {
		write(t, filepath.Join(dir, name), content)
		return filepath.Join(dir, name)
	}
	cert, key := path("cert", certs[1]), path("key", keys[1])
	for _, test := range []struct{ cert, key, says string }{
		{key, key, "the file " + key + " holds no certificate in PEM"},
		{cert, cert, "the file " + cert + " holds no private key in PEM"},
		{cert, path("other", keys[2]), "the files " + cert + " and " + filepath.Join(dir, "other") + " do not belong together"},
		{cert, path("strange", "-----BEGIN marker PRIVATE KEY-----\n-----END marker PRIVATE KEY-----\n"), "or one of them is damaged"},
		{cert, path("utf16", "\xFE\xFF\x00-"), "is UTF-16"},
	} {
		if _, err := Pair(Config{}, test.cert, test.key); err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "marker") {
			t.Errorf("%v, want %s", err, test.says)
		}
	}
}

func TestReadersNeverWait(t *testing.T) {
	v, _, _ := follows(t, "good")
	if n := testing.AllocsPerRun(100, func() { _ = v.Get() }); n != 0 {
		t.Errorf("a reader allocates %v times", n)
	}
}

func BenchmarkGet(b *testing.B) {
	v, err := Text(Config{}, "constant", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_ = v.Get()
		}
	})
}
