package blockhttp

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Each kind of trouble has words, something to do, and a runbook that there is.
func TestTroublesHaveWords(t *testing.T) {
	manual, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	for _, kind := range block.TroubleKinds() {
		a := troubleSays(kind)
		require.NotEqual(t, string(kind), a.says)
		require.NotEmpty(t, a.do, kind)
		require.Regexp(t, `(?m)^###? `+a.runbook+`$`, string(manual))
		require.Contains(t, string(manual), "(#"+anchor(a.runbook)+")", "as the manual itself links to it")
	}
}

// A store that does not open is told with the cause, in the words that its own page would have.
func TestTroublesInWords(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	h := &dbHandler{}
	for _, c := range []struct {
		trouble             block.Trouble
		grade, says, causes string
	}{
		{block.Trouble{Kind: block.TroubleNotOpened, Err: vault.ErrAccessDenied}, "error", "the vault denies access.", "access_denied"},
		{block.Trouble{Kind: block.TroubleNotOpened, Err: errors.New("no such customer")}, "error", "it could not be opened.", ""},
		{block.Trouble{Kind: block.TroubleDamaged, Err: keyring.ErrUnexpected}, "error", "the keyring is older than it was, or another store's.", "unexpected_keyring"},
		{block.Trouble{Kind: block.TroubleDamaged, Err: block.ErrForeign}, "error", "something of it is damaged, or not what it wrote.", ""},
		{block.Trouble{Kind: block.TroubleInaccessible, State: keyring.State{Status: keyring.Inaccessible}}, "error", "it waits to be revalidated, as a copy of a store does.", "awaits_revalidate"},
		{block.Trouble{Kind: block.TroubleAnchorLags, Err: errors.New("no space")}, "warning", "its anchor lags, so that an older copy of it would be accepted.", ""},
		{block.Trouble{Kind: block.TroubleKeyNearExpiry, State: keyring.State{KEKExpires: now.Add(time.Hour)}}, "warning", "its key expires in 1 h 00 min.", ""},
		{block.Trouble{Kind: block.TroubleFilesClosed, Err: vault.ErrKeyDisabled}, "error", "the key is disabled.", "key_disabled"},
		{block.Trouble{Kind: block.TroubleFilesClosed, Err: errors.New("the disk is gone")}, "error", "the engine's files are closed, and all stores are Inaccessible.", ""},
		{block.Trouble{Kind: block.TroubleDropUnfinished}, "error", "its drop is not finished.", ""},
		{block.Trouble{Kind: block.TroubleDropFinished}, "warning", "its drop was cut off, and was finished when the DB was opened.", ""},
	} {
		c.trouble.Store = "a"
		v := h.viewTrouble(c.trouble, now)
		require.Equal(t, c.grade, v.Grade, c)
		require.Equal(t, c.says, v.Says)
		require.Equal(t, c.causes, v.Cause)
		require.NotEmpty(t, v.Do)
	}
	nameless := h.viewTrouble(block.Trouble{Kind: block.TroubleDamaged, Err: block.ErrCorrupt}, now)
	require.Equal(t, "an entry of the list of stores", nameless.Shown)
	require.Equal(t, "the engine's files", h.viewTrouble(block.Trouble{Kind: block.TroubleFilesClosed}, now).Shown)
}

// What is wrong with a store is told without the ids of its blocks.
func TestTroublesNameNoBlocks(t *testing.T) {
	h := &dbHandler{}
	for _, tr := range []block.Trouble{
		{Kind: block.TroubleDamaged, Err: fmt.Errorf(`block "account-4711": %w`, block.ErrCorrupt)},
		{Kind: block.TroubleNotOpened, Err: fmt.Errorf(`block "account-4711": %w`, block.ErrVersion)},
	} {
		tr.Store = "a"
		require.NotContains(t, fmt.Sprintf("%+v", h.viewTrouble(tr, time.Now())), "4711")
	}
}

// A list of stores that cannot be read is the headline, whatever the stores are.
func TestDBHeadlines(t *testing.T) {
	st := block.DBStats{States: map[string]int{}, TroubleCounts: map[block.TroubleKind]int{}}
	require.Equal(t, "ok", dbState(st, nil).Status)
	require.Equal(t, "error", dbState(st, block.ErrCorrupt).Status)
	require.NotEmpty(t, dbState(st, block.ErrCorrupt).Error)
	st.TroubleCounts[block.TroubleDropFinished] = 1
	require.Equal(t, "warning", dbState(st, nil).Status)
	st.TroubleCounts[block.TroubleDamaged] = 1
	require.Equal(t, "error", dbState(st, nil).Status)
	st.Closed = true
	require.Equal(t, "closed", dbState(st, nil).Status)
}
