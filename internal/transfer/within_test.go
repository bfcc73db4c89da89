package transfer

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Who waits for a reader or a writer stops when the context ends, and asks none whose context has ended.
func TestNobodyIsWaitedForLonger(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	begun, goOn := make(chan struct{}, 2), make(chan struct{})
	defer close(goOn)
	r := &readWithin{ctx: ctx, r: readerFunc(func([]byte) (int, error) { begun <- struct{}{}; <-goOn; return 0, io.EOF })}
	w := &writeWithin{ctx: ctx, w: writerFunc(func(p []byte) (int, error) { begun <- struct{}{}; <-goOn; return len(p), nil })}
	ended := make(chan error, 2)
	go func() { _, err := r.Read(make([]byte, 1)); ended <- err }()
	go func() { _, err := w.Write(make([]byte, 1)); ended <- err }()
	<-begun
	<-begun
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.ErrorIs(t, <-ended, context.Canceled)

	r = &readWithin{ctx: ctx, r: readerFunc(func([]byte) (int, error) { t.Error("was asked"); return 0, io.EOF })}
	_, err := r.Read(make([]byte, 1))
	require.ErrorIs(t, err, context.Canceled)
	w = &writeWithin{ctx: ctx, w: writerFunc(func([]byte) (int, error) { t.Error("was asked"); return 0, nil })}
	_, err = w.Write(make([]byte, 1))
	require.ErrorIs(t, err, context.Canceled)
}

// A reader that returns what none may, or data together with its error, and a writer that says that it took less.
func TestOddReadersAndWriters(t *testing.T) {
	for _, n := range []int{-1, step + 1} {
		r := &readWithin{ctx: t.Context(), r: readerFunc(func([]byte) (int, error) { return n, nil })}
		_, err := r.Read(make([]byte, 10))
		require.ErrorContains(t, err, "impossible count")
	}
	broken := errors.New("broken")
	asked := 0
	r := &readWithin{ctx: t.Context(), r: readerFunc(func(p []byte) (int, error) { asked++; return copy(p, "abc"), broken })}
	b := make([]byte, 2)
	n, err := r.Read(b)
	require.NoError(t, err, "there is more of what was read")
	require.Equal(t, "ab", string(b[:n]))
	n, err = r.Read(b)
	require.ErrorIs(t, err, broken)
	require.Equal(t, "c", string(b[:n]))
	n, err = r.Read(b)
	require.ErrorIs(t, err, broken)
	require.Zero(t, n)
	require.Equal(t, 1, asked, "a reader that has failed is not asked again")

	w := &writeWithin{ctx: t.Context(), w: writerFunc(func(p []byte) (int, error) { return len(p) - 1, nil })}
	_, err = w.Write([]byte("abc"))
	require.ErrorIs(t, err, io.ErrShortWrite)
	var all strings.Builder
	w = &writeWithin{ctx: t.Context(), w: &all}
	long := strings.Repeat("x", 3*step+5)
	n, err = w.Write([]byte(long))
	require.NoError(t, err)
	require.Equal(t, len(long), n)
	require.Equal(t, long, all.String())
}
