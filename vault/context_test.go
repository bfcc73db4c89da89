package vault_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

func TestPriority(t *testing.T) {
	ctx := t.Context()
	require.False(t, vault.Priority(ctx))
	marked := vault.WithPriority(ctx)
	require.True(t, vault.Priority(marked))
	child, cancel := context.WithCancel(marked)
	defer cancel()
	require.True(t, vault.Priority(child))
	require.True(t, vault.Priority(context.WithoutCancel(child)))
	require.False(t, vault.Priority(ctx))
}

func TestNoteRequestID(t *testing.T) {
	ctx := t.Context()
	vault.NoteRequestID(ctx, "nobody asked")
	var noted []string
	asked := vault.OnRequestID(ctx, func(id string) { noted = append(noted, id) })
	vault.NoteRequestID(asked, "one")
	vault.NoteRequestID(asked, "")
	vault.NoteRequestID(context.WithoutCancel(asked), "two")
	inner := vault.OnRequestID(asked, func(id string) { noted = append(noted, "inner "+id) })
	vault.NoteRequestID(inner, "three")
	require.Equal(t, []string{"one", "two", "inner three"}, noted)
}
