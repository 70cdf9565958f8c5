package vault

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/failures"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/seal"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/vault/store"
)

// Failure is a failed login of an account, at whichever instance. Digest makes its Proof and Network.
type Failure = failures.Failure

// digestSize is how many bytes of a digest tell failures apart.
const digestSize = 8

// Digest stands for a text, the same at every instance, and cannot be tried out without the key.
func (v *Vault) Digest(kind, text string) string {
	digest := v.config.Keys().Namers()[0].Digest(kind, text)
	return hex.EncodeToString(digest[:digestSize])
}

// Number is the same as a number.
func (v *Vault) Number(kind, text string) uint64 {
	digest := v.config.Keys().Namers()[0].Digest(kind, text)
	return binary.LittleEndian.Uint64(digest[:])
}

// Failures are the failed logins of an account since a time. Those that are under way or just being noted at another
// instance are missing.
func (v *Vault) Failures(ctx context.Context, account string, since time.Time) ([]Failure, error) {
	return v.failures.Since(ctx, v.config.Keys().Namers()[0].Failures(account), since)
}

// Failed notes a failed login of an account. Those from before a time are forgotten.
func (v *Vault) Failed(ctx context.Context, account string, f Failure, forget time.Time) error {
	ctx, cancel := afterAll(ctx)
	defer cancel()
	return v.failures.Note(ctx, v.config.Keys().Namers()[0].Failures(account), f, forget)
}

// Histories is the folder of what instances have counted at a token endpoint.
func (v *Vault) Histories(endpoint string) store.Folder {
	return v.store.Folder(histories(&v.config.Keys().Namers()[0]) + "/" + v.Digest("endpoint", endpoint))
}

func histories(n *seal.Namer) string { return n.Dir() + "/history" }
