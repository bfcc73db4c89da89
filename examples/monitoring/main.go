// Monitoring is a program with a store in it, and everything that an engineer on
// call looks at:
//
//	go run ./examples/monitoring
//
// It keeps a file vault and a DB with a store in a temporary directory (-dir keeps them), puts
// and gets blocks, and serves http://127.0.0.1:9464/ with a status page of the store, /db/ with
// one of the DB, /status.json and /db/status.json with the same, and /metrics for Prometheus. With -webhook it posts
// what happens to the store's access to a URL. alerts.yml has alerting rules over
// its metrics.
//
// Read start first: what a program does to be monitored is there. webhook.go is a
// notifier with bounded retries, auditmetrics.go the metrics of the audit log,
// load.go the blocks, rehearse.go what -for does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/blockhttp"
	"github.com/blockseal/blockseal/block/blockprom"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/local"
)

func main() { cli.Main("monitoring", run) }

const about = `Monitoring runs a store with a status page, metrics and a webhook.

  go run ./examples/monitoring [-listen ADDRESS] [-dir DIR] [-webhook URL] [-for DURATION]
`

// passphrase protects a vault that is there to be looked at. A real one is asked for.
const passphrase = "correct horse battery staple"

// storeName is the store's name in the DB.
const storeName = "orders"

// keyName is the KEK's name in the vault.
const keyName = "customer"

type options struct {
	listen, dir, webhook string
	rehearse             time.Duration
}

func parse(args []string, out io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("monitoring", flag.ContinueOnError)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:9464", "the `address` to serve; anyone who reaches it reads the page")
	flags.StringVar(&o.dir, "dir", "", "the `directory` of vault, store and audit log (default: a temporary one)")
	flags.StringVar(&o.webhook, "webhook", "", "the `URL` to post changes of access to (default: none)")
	flags.DurationVar(&o.rehearse, "for", 0, "run so long, take the key away and give it back meanwhile, check what page and\nmetrics say to it, and end (default: run until interrupted)")
	if err := cli.Parse(flags, about, args, out); err != nil {
		return o, err
	}
	if o.rehearse < 0 {
		return o, fmt.Errorf("-for %v is negative; %w", o.rehearse, cli.ErrUsage)
	}
	if u, err := url.Parse(o.webhook); o.webhook != "" && (err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https")) {
		// Without the text of err, which has the URL, which may have a token.
		return o, fmt.Errorf("-webhook is not an http or https URL; %w", cli.ErrUsage)
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "blockseal-monitoring-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	out = cli.Shared(out) // the store logs from goroutines of its own
	m, err := start(ctx, o, slog.New(slog.NewTextHandler(out, nil)))
	if err != nil {
		return err
	}
	defer closing(m, &err)
	fmt.Fprintf(out, "status page   http://%s/\nas JSON       http://%s/status.json\nof all stores http://%s/db/\nmetrics       http://%s/metrics\n", m.addr, m.addr, m.addr, m.addr)
	if o.rehearse > 0 {
		return rehearse(ctx, m, o.rehearse, out)
	}
	return m.work(ctx)
}

// monitored is a store in a DB, with all that is around it.
type monitored struct {
	vault  *local.Vault
	log    *audit.Log
	db     *block.DB
	store  *block.Store
	notify *notifier // nil: none
	server *http.Server
	addr   string
	served chan error
}

// start opens vault, audit log and store, in that order, and serves pages about
// them.
func start(ctx context.Context, o options, logger *slog.Logger) (m *monitored, err error) {
	m = &monitored{served: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if m.vault, err = openVault(ctx, filepath.Join(o.dir, "vault")); err != nil {
		return m, err
	}
	// Every call to the vault is recorded, and withheld if it cannot be.
	if m.log, err = audit.OpenDir(filepath.Join(o.dir, "audit"), nil); err != nil {
		return m, err
	}
	v := audit.New(m.vault.As("store"), m.log, &audit.Options{Identity: "store", FailClosed: true})

	registry := prometheus.NewRegistry()
	if o.webhook != "" {
		m.notify = newNotifier(o.webhook, logger, defaultRetry())
		registry.MustRegister(m.notify)
	}
	// One store of a DB; a program for many customers has one for each, and opens it by Acquire.
	if m.db, err = block.OpenDB(ctx, filepath.Join(o.dir, "store"), &block.DBOptions{Logger: logger}); err != nil {
		return m, err
	}
	k, opts := kek.New(v, vault.KeyID{Name: keyName}), &block.Options{Keyring: keyring.Options{Logger: logger, OnEvent: m.onEvent}}
	if m.store, err = m.db.Open(ctx, storeName, k, opts); errors.Is(err, block.ErrNoStore) {
		m.store, err = m.db.Create(ctx, storeName, k, opts)
	}
	if err != nil {
		return m, err
	}

	// With many stores, the DB's metrics alone: their number does not grow with that of the stores.
	registry.MustRegister(blockprom.NewDB(m.db, nil), blockprom.New(m.store, nil), auditCollector{m.log}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	page := &blockhttp.Options{Name: "monitoring", Audit: func() blockhttp.AuditStatus {
		st := m.log.Stats()
		return blockhttp.AuditStatus{Head: st.Head.String(), Pending: st.Pending, Lost: st.Lost}
	}}
	mux.Handle("/", blockhttp.Handler(m.store, page))
	mux.Handle("/db/", blockhttp.DBHandler(m.db, page))
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return m, err
	}
	m.addr = listener.Addr().String()
	m.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	go func() { m.served <- m.server.Serve(listener) }()
	return m, nil
}

// onEvent is called with each event, in order. It must not wait: an event that comes
// while 1,024 others do is dropped.
func (m *monitored) onEvent(e keyring.Event) {
	switch e.Kind {
	case keyring.StateChanged:
		// Beside the vault's operations, the audit log says what became of them. An
		// error is in the log's own statistics.
		r := audit.Record{Time: e.Time, Event: audit.EventState, Store: e.Store, Detail: fmt.Sprintf("%v to %v", e.From, e.To)}
		if e.Err != nil {
			r.Reason = e.Err.Error()
		}
		m.log.Record(context.Background(), r)
	case keyring.KeyNearExpiry, keyring.KEKNotChanged, keyring.CopyKEKNotChanged, keyring.AnchorNotAdvanced:
	default:
		return
	}
	if m.notify != nil {
		m.notify.send(e)
	}
}

// Close stops serving and closes everything, what was opened last first.
func (m *monitored) Close() error {
	var errs []error
	if m.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		errs = append(errs, m.server.Shutdown(ctx))
		if err := <-m.served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	if m.db != nil {
		errs = append(errs, m.db.Close()) // and the store with it
	}
	if m.notify != nil {
		m.notify.Close()
	}
	if m.log != nil {
		errs = append(errs, m.log.Close())
	}
	if m.vault != nil {
		errs = append(errs, m.vault.Close())
	}
	return errors.Join(errs...)
}

// openVault opens the vault in dir, or makes one with a key that the identity
// "store" may use.
func openVault(ctx context.Context, dir string) (*local.Vault, error) {
	v, err := local.OpenOrCreate(dir, []byte(passphrase), nil)
	if err != nil {
		return nil, err
	}
	year := time.Now().AddDate(1, 0, 0)
	if _, err = v.EnsureKey(ctx, keyName, &local.KeyOptions{Expires: year}); err == nil {
		err = v.Grant(ctx, "store", local.DataPlane()...)
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// closing closes c and keeps its error, unless there is one already.
func closing(c io.Closer, err *error) {
	if e := c.Close(); *err == nil {
		*err = e
	}
}
