// Command bench measures what smapi_upgrade costs beside a bare reverse_proxy, in one Caddy process that
// serves both, in turn. It prints the tables of docs/performance.md and ends by itself.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/smapi-tools/caddy-smapi-upgrade"
)

// asCaddy in the environment makes this program the Caddy that it measures.
const asCaddy = "SMAPI_BENCH_CADDY"

func main() {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	if each := os.Getenv(asEndpoint); each != "" {
		fmt.Fprintln(os.Stderr, "bench:", beEndpoint(each))
		os.Exit(1)
	}
	rounds := flag.Int("rounds", 100, "how many times each pair is measured, in turn")
	slice := flag.Duration("slice", 100*time.Millisecond, "how long one measurement takes")
	only := flag.Int("only", 0, "measure this row alone, -1 for none")
	uploads := flag.Int("uploads", 2000, "how many slow uploads are open at once for the memory row, 0 for none")
	admin := flag.String("admin", "off", "admin `address` of the Caddy, for its /debug/pprof")
	records := flag.Int("vault", 0, "measure a vault of so many records in files instead, of a million for the documents")
	waves := flag.Bool("capacity", false, "measure waves of upgrades, and the memory of players who wait, instead")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()

	report := new(Report)
	var err error
	if *records > 0 {
		report.Vault, err = measureVault(*records)
	} else if *waves {
		if report.Waves, err = measureWaves(*only, *admin); err == nil && *only <= 0 {
			report.Waiting, err = measureWaiting()
		}
	} else {
		report, err = run(*rounds, *slice, *only, *uploads, *admin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if *asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "\t")
		if err := out.Encode(report); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	report.print(os.Stdout)
}

// Report is what was measured.
type Report struct {
	Rows   []Row   `json:"rows"`
	Memory *Memory `json:"memory,omitempty"`
	Waves  []Wave  `json:"waves,omitempty"`
	Vault  *Vault  `json:"vault,omitempty"`

	Waiting []Waiting `json:"waiting,omitempty"`
}

// Row compares smapi_upgrade with a bare reverse_proxy, by medians over the rounds.
type Row struct {
	Name string `json:"name"`

	// CPU time of the Caddy process per request, in microseconds.
	BareCPU float64 `json:"bare_cpu_us"`
	CPU     float64 `json:"cpu_us"`

	// Requests per second.
	BareRate float64 `json:"bare_per_second"`
	Rate     float64 `json:"per_second"`

	// Ratios to the bare proxy, round by round.
	CPURatio  Ratio `json:"cpu_ratio"`
	RateRatio Ratio `json:"rate_ratio"`
}

// Ratio is a median and the quartiles around it.
type Ratio struct {
	Median float64 `json:"median"`
	Low    float64 `json:"quartile_1"`
	High   float64 `json:"quartile_3"`
}

// Memory is the peak of the Caddy process's resident memory with slow uploads open, in MiB.
type Memory struct {
	Uploads int     `json:"uploads"`
	Bare    float64 `json:"bare_mib"`
	With    float64 `json:"mib"`
	Ratio   float64 `json:"ratio"`
}

func run(rounds int, slice time.Duration, only, uploads int, admin string) (*Report, error) {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)

	house, err := newHouse()
	if err != nil {
		return nil, err
	}
	defer house.close()

	report := new(Report)
	if only >= 0 {
		caddy, err := house.start(admin)
		if err != nil {
			return nil, err
		}
		defer caddy.stop()
		for i, pair := range house.pairs() {
			if only > 0 && only != i+1 {
				continue
			}
			row, err := measure(caddy, pair, rounds, slice, interrupted)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pair.name, err)
			}
			report.Rows = append(report.Rows, row)
		}
		caddy.stop()
	}
	if uploads > 0 && only <= 0 {
		progress("memory")
		if report.Memory, err = house.measureMemory(uploads); err != nil {
			return nil, fmt.Errorf("memory: %w", err)
		}
	}
	progress("")
	return report, nil
}

// measure drives the two sides of a pair in turn. The order changes from round to round, so that neither
// side always follows the other.
func measure(caddy *process, pair pair, rounds int, slice time.Duration, interrupted <-chan os.Signal) (Row, error) {
	sides := [2]load{pair.bare, pair.with}
	for _, side := range sides { // connections, and what the process does only once
		if _, err := side.drive(caddy, 10*slice); err != nil {
			return Row{}, err
		}
	}
	var cpu, rate [2][]float64
	for round := range rounds {
		for turn := range 2 {
			side := (round + turn) % 2
			progress("%s: round %d of %d", pair.name, round+1, rounds)
			m, err := sides[side].drive(caddy, slice)
			if err != nil {
				return Row{}, err
			}
			cpu[side] = append(cpu[side], m.cpu)
			rate[side] = append(rate[side], m.rate)
			select {
			case <-interrupted:
				return Row{}, fmt.Errorf("interrupted")
			default:
			}
		}
	}
	return Row{
		Name:    pair.name,
		BareCPU: median(cpu[0]), CPU: median(cpu[1]),
		BareRate: median(rate[0]), Rate: median(rate[1]),
		CPURatio: ratio(cpu[1], cpu[0]), RateRatio: ratio(rate[1], rate[0]),
	}, nil
}

func ratio(with, bare []float64) Ratio {
	ratios := make([]float64, len(with))
	for i := range ratios {
		ratios[i] = with[i] / bare[i]
	}
	return Ratio{Median: median(ratios), Low: quantile(ratios, 0.25), High: quantile(ratios, 0.75)}
}

func median(values []float64) float64 { return quantile(values, 0.5) }

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below+1 == len(sorted) {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

func (r *Report) print(out *os.File) {
	if r.Vault != nil {
		r.Vault.print(out)
	}
	if len(r.Rows) > 0 {
		fmt.Fprintln(out, "| request | CPU, bare | CPU, with | CPU ratio (quartiles) | requests/s ratio (quartiles) |")
		fmt.Fprintln(out, "|---|---|---|---|---|")
	}
	for _, row := range r.Rows {
		fmt.Fprintf(out, "| %s | %.1f µs | %.1f µs | **%.2f** (%.2f to %.2f) | %.2f (%.2f to %.2f) |\n", row.Name,
			row.BareCPU, row.CPU, row.CPURatio.Median, row.CPURatio.Low, row.CPURatio.High,
			row.RateRatio.Median, row.RateRatio.Low, row.RateRatio.High)
	}
	if len(r.Waves) > 0 {
		fmt.Fprintln(out, "| accounts at once | logins/s of the token endpoint | all upgraded after | turned away on the way | CPU of the node | CPU of all around it | peak memory |")
		fmt.Fprintln(out, "|---|---|---|---|---|---|---|")
	}
	for _, w := range r.Waves {
		fmt.Fprintf(out, "| %d over %s | %d | %.1f s | %d | %.1f s | %.1f s | %.0f MiB |\n",
			w.Accounts, w.Protocol, w.LoginsPerSecond, w.Seconds, w.TurnedAway, w.CPU, w.CPUAround, w.Memory)
	}
	if len(r.Waiting) > 0 {
		fmt.Fprintln(out, "\n| players who wait | each takes | with a vault | a request that a bare reverse_proxy holds open |")
		fmt.Fprintln(out, "|---|---|---|---|")
	}
	for _, w := range r.Waiting {
		fmt.Fprintf(out, "| %d over %s | %.0f KiB, **%.2f** | %.0f KiB, **%.2f** | %.0f KiB |\n",
			w.Players, w.Protocol, w.With, w.With/w.Bare, w.Vault, w.Vault/w.Bare, w.Bare)
	}
	if m := r.Memory; m != nil {
		fmt.Fprintf(out, "\nPeak memory with %d slow uploads of 1 MB open at once: %.0f MiB, bare %.0f MiB, ratio **%.2f**.\n",
			m.Uploads, m.With, m.Bare, m.Ratio)
	}
}

var terminal = func() bool {
	info, err := os.Stderr.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}()

// progress shows what is being done, on a terminal.
func progress(format string, args ...any) {
	if terminal {
		fmt.Fprintf(os.Stderr, "\r\x1b[K"+format, args...)
	}
}
