package directive

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/settings"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

func unmarshalOldService(o *settings.Options, d *caddyfile.Dispenser) error {
	o.OldService = new(settings.OldService)
	kind := ""
	if err := text(d, "old_service", &kind); err != nil {
		return err
	}
	o.OldService.Credentials = smapi.Kind(kind)
	parts, grace := o.OldService.Parts(), false
	for d.NextBlock(1) {
		name := d.Val()
		part := parts[name]
		switch {
		case part == nil && name != "grace":
			return unrecognized(d, "old_service", name)
		case part != nil && *part != "", part == nil && grace:
			return d.Errf("%s is given twice", name)
		case part == nil:
			grace = true
			if err := parsed(d, name, &o.OldService.Grace, parseDuration); err != nil {
				return err
			}
			continue
		}
		if err := text(d, name, part); err != nil {
			return err
		}
	}
	return nil
}
