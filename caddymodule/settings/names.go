package settings

import (
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings/value"
)

// Blocks are the options by the directive or the option in whose block the Caddyfile has them.
var Blocks = map[string][]string{
	"smapi_upgrade": value.NamesOf[Options]("token_endpoint", "private_key_fallback"),
	"exchange":      value.NamesOf[Exchange]("credentials", "grant_type"),
	"vault":         value.NamesOf[Vault]("key_file"),
	"sign_in":       value.NamesOf[SignIn](),
	"old_service":   value.NamesOf[OldService]("credentials"),
}

// UnmarshalJSON reads the options, and finds those that there are not.
func (o *Options) UnmarshalJSON(text []byte) error {
	type plain Options
	return value.ReadOptions(text, (*plain)(o))
}

// UnmarshalJSON is Options.UnmarshalJSON.
func (o *OldService) UnmarshalJSON(text []byte) error {
	type plain OldService
	return value.ReadOptions(text, (*plain)(o))
}

// UnmarshalJSON is Options.UnmarshalJSON.
func (v *Vault) UnmarshalJSON(text []byte) error {
	type plain Vault
	return value.ReadOptions(text, (*plain)(v))
}

// UnmarshalJSON is Options.UnmarshalJSON.
func (x *Exchange) UnmarshalJSON(text []byte) error {
	type plain Exchange
	return value.ReadOptions(text, (*plain)(x))
}

// UnmarshalJSON is Options.UnmarshalJSON.
func (s *SignIn) UnmarshalJSON(text []byte) error {
	type plain SignIn
	return value.ReadOptions(text, (*plain)(s))
}
