package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// rehearse works for about the given time, disables the key after a third of it and
// enables it after another, and checks that page, JSON and metrics say so.
func rehearse(ctx context.Context, m *monitored, length time.Duration, out io.Writer) error {
	working, stop := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- m.work(working) }()
	err := m.takeAndGiveBack(ctx, length/3)
	stop()
	if err := errors.Join(err, <-worked); err != nil {
		return err
	}
	st := m.store.Stats()
	fmt.Fprintf(out, "rehearsed     the key was disabled and enabled; page, JSON and metrics said so\n"+
		"counted       %d puts, %d gets, %d checks denied, audit log at %d records\n",
		st.Puts, st.Gets+st.NotFound, st.Keys.Checks.Denied, m.log.Stats().Head.Seq)
	return nil
}

func (m *monitored) takeAndGiveBack(ctx context.Context, each time.Duration) error {
	if err := pause(ctx, each); err != nil {
		return err
	}
	if err := m.says(ctx, "Available"); err != nil {
		return err
	}
	if err := m.enable(ctx, false); err != nil {
		return err
	}
	if err := m.store.Revalidate(ctx); !errors.Is(err, vault.ErrKeyDisabled) {
		return fmt.Errorf("the key was disabled, and revalidating said: %v", err)
	}
	if err := errors.Join(m.says(ctx, "Inaccessible"), pause(ctx, each)); err != nil {
		return err
	}
	if err := errors.Join(m.enable(ctx, true), m.store.Revalidate(ctx)); err != nil {
		return err
	}
	if err := m.says(ctx, "Available"); err != nil {
		return err
	}
	return pause(ctx, each)
}

// enable enables or disables the key at its vault.
func (m *monitored) enable(ctx context.Context, on bool) error {
	_, err := m.vault.UpdateKey(ctx, vault.KeyID{Name: keyName}, local.Update{Enabled: &on})
	return err
}

// says checks that everything that is served names the state.
func (m *monitored) says(ctx context.Context, state string) error {
	page, err := m.fetch(ctx, "/")
	if err != nil {
		return err
	}
	if !strings.Contains(page, "<strong>"+state+": ") {
		return fmt.Errorf("the status page does not say that the store is %s", state)
	}
	var status struct{ State struct{ Status string } }
	if page, err = m.fetch(ctx, "/status.json"); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(page), &status); err != nil || status.State.Status != state {
		return fmt.Errorf("status.json says %q, not %q (%v)", status.State.Status, state, err)
	}
	if page, err = m.fetch(ctx, "/db/"); err != nil {
		return err
	}
	if named := strings.Contains(page, "<bdi>"+storeName+"</bdi>"); named == (state == "Available") {
		return fmt.Errorf("the page of the DB names a store if it needs a person: %v, and it is %s", named, state)
	}
	if page, err = m.fetch(ctx, "/metrics"); err != nil {
		return err
	}
	want := fmt.Sprintf(`blockseal_state{state=%q,store=%q} 1`, strings.ToLower(state), m.store.StoreID())
	if !strings.Contains(page, want) {
		return fmt.Errorf("the metrics do not have %s", want)
	}
	if want = fmt.Sprintf(`state=%q} 1`, strings.ToLower(state)); !strings.Contains(page, "\nblockseal_db_stores{db=") || !strings.Contains(page, want) {
		return fmt.Errorf("the metrics of the DB do not have a store with %s", want)
	}
	return nil
}

func (m *monitored) fetch(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.addr+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %d", path, resp.StatusCode)
	}
	return string(body), err
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
