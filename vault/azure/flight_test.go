package azure

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/vault"
)

// wall is the clock of a bubble.
type wall struct{ origin time.Time }

func (wall) Now() time.Time           { return time.Now() }
func (w wall) Elapsed() time.Duration { return time.Since(w.origin) }
func (wall) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// flightRig counts how often a call is made that waits until it is let go, or ended.
type flightRig struct {
	*flights[string, []byte]
	began, ended atomic.Int32
	lastOnes     atomic.Int32 // how often the value itself was handed back
	letGo        chan []byte
}

func newFlightRig() *flightRig {
	return &flightRig{flights: newFlights[string, []byte](wall{time.Now()}), letGo: make(chan []byte)}
}

func (r *flightRig) call(ctx context.Context, board boarding) ([]byte, error) {
	return r.do(ctx, "kek", board, func(ctx context.Context, _ *call) ([]byte, error) {
		r.began.Add(1)
		select {
		case b := <-r.letGo:
			return b, nil
		case <-ctx.Done():
			r.ended.Add(1)
			return nil, ctx.Err()
		}
	}, func(b []byte) []byte { return append([]byte(nil), b...) }, func(b []byte) {
		r.lastOnes.Add(1)
		clear(b)
	})
}

type flightAnswer struct {
	b   []byte
	err error
}

func (r *flightRig) start(ctx context.Context, board boarding) chan flightAnswer {
	done := make(chan flightAnswer, 1)
	go func() {
		b, err := r.call(ctx, board)
		done <- flightAnswer{b, err}
	}()
	synctest.Wait()
	return done
}

// A context that has ended begins nothing, and joins nothing.
func TestAnEndedContextGoesNowhere(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		r := newFlightRig()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := r.call(ended, func(*call) (*call, error) { t.Error("it is on its way"); return nil, nil })
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, r.began.Load())
		going := r.start(t.Context(), nil)
		_, err = r.call(ended, nil)
		require.ErrorIs(t, err, context.Canceled)
		r.letGo <- []byte("answer")
		require.Equal(t, "answer", string((<-going).b))
		require.EqualValues(t, 1, r.began.Load())
	})
}

// Each has its own copy, and what it was copied from is cleared once, when all have theirs.
func TestTheLastClears(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		r := newFlightRig()
		one, two := r.start(t.Context(), nil), r.start(t.Context(), nil)
		require.EqualValues(t, 1, r.began.Load())
		answer := []byte("answer")
		r.letGo <- answer
		a, b := <-one, <-two
		synctest.Wait()
		require.Equal(t, "answer", string(a.b))
		require.Equal(t, "answer", string(b.b))
		require.NotSame(t, &a.b[0], &b.b[0])
		require.EqualValues(t, 1, r.lastOnes.Load())
		require.Equal(t, make([]byte, 6), answer, "cleared")
	})
}

// So is an answer that comes when nobody waits for it any more.
func TestAnAnswerForNobodyIsCleared(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		r := newFlightRig()
		answer, letGo := []byte("answer"), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := r.do(ctx, "kek", nil, func(context.Context, *call) ([]byte, error) {
				<-letGo // it does not notice
				return answer, nil
			}, func(b []byte) []byte { return b }, func(b []byte) { clear(b) })
			done <- err
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		close(letGo)
		synctest.Wait()
		require.Equal(t, make([]byte, 6), answer)
	})
}

// The first to go ends nothing for the others; the last does, and nobody joins what it
// ended. A call that was given up does not take the next one's place away when it ends.
func TestTheLastToGoEndsTheCall(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		r := newFlightRig()
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		one, two := r.start(first, nil), r.start(second, nil)
		cancelFirst()
		require.ErrorIs(t, (<-one).err, context.Canceled)
		synctest.Wait()
		require.Zero(t, r.ended.Load())
		cancelSecond()
		require.ErrorIs(t, (<-two).err, context.Canceled)
		three := r.start(t.Context(), nil)
		require.Equal(t, []int32{2, 1}, []int32{r.began.Load(), r.ended.Load()}, "another call, and the one before has ended")
		four := r.start(t.Context(), nil)
		require.EqualValues(t, 2, r.began.Load(), "which others join")
		r.letGo <- []byte("answer")
		require.NoError(t, (<-three).err)
		require.NoError(t, (<-four).err)
		require.Empty(t, r.calls)
	})
}

// A call that takes long is not joined after a second, and when it ends, or is given up, the
// one that was begun after it is still there to join.
func TestAnOldCallLeavesTheNewOneAlone(t *testing.T) {
	for _, givenUp := range []bool{false, true} {
		bubbles.Test(t, func(t *testing.T) {
			r := newFlightRig()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			old := r.start(ctx, nil)
			time.Sleep(joinWithin)
			joined := r.start(ctx, nil)
			require.EqualValues(t, 1, r.began.Load(), "it is a second old, and no more")
			time.Sleep(time.Nanosecond)
			young := r.start(t.Context(), nil)
			require.EqualValues(t, 2, r.began.Load())
			if givenUp {
				cancel()
			} else {
				r.letGo <- []byte("old")
			}
			<-old
			<-joined
			synctest.Wait()
			also := r.start(t.Context(), nil)
			require.EqualValues(t, 2, r.began.Load(), "it joins the young one")
			r.letGo <- []byte("young")
			require.Equal(t, "young", string((<-young).b))
			require.Equal(t, "young", string((<-also).b))
		})
	}
}

// The time in which others may join begins when the call is sent, not when it begins to
// wait for its turn; that it is sent again does not begin it anew.
func TestWhenACallWasSent(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		r := newFlightRig()
		var cl *call
		board := func(have *call) (*call, error) {
			if have == nil {
				cl = &call{}
				have = cl
			}
			return have, nil
		}
		waits := []chan flightAnswer{r.start(t.Context(), board)}
		time.Sleep(time.Minute) // in the queue
		waits = append(waits, r.start(t.Context(), board))
		require.EqualValues(t, 1, r.began.Load())
		cl.sent()
		time.Sleep(joinWithin)
		waits = append(waits, r.start(t.Context(), board))
		require.EqualValues(t, 1, r.began.Load())
		cl.sent() // a second try
		time.Sleep(time.Nanosecond)
		waits = append(waits, r.start(t.Context(), board))
		require.EqualValues(t, 2, r.began.Load())
		r.letGo <- []byte("answer")
		r.letGo <- []byte("answer")
		for _, w := range waits {
			require.NoError(t, (<-w).err)
		}
	})
}

// Who may not board leaves nothing behind, and the others' call goes on.
func TestWhoMayNotBoard(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		r := newFlightRig()
		full := errors.New("too late")
		_, err := r.call(t.Context(), func(*call) (*call, error) { return nil, full })
		require.ErrorIs(t, err, full)
		require.Empty(t, r.calls)
		going := r.start(t.Context(), nil)
		_, err = r.call(t.Context(), func(*call) (*call, error) { return nil, full })
		require.ErrorIs(t, err, full)
		r.letGo <- []byte("answer")
		require.NoError(t, (<-going).err)
	})
}

// Those who joined know the request's id, too.
func TestRequestIDOfAJoinedCall(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		f := newFlights[string, int](wall{time.Now()})
		letGo := make(chan struct{})
		run := func(ctx context.Context, _ *call) (int, error) {
			vault.NoteRequestID(ctx, "the id")
			<-letGo
			return 1, nil
		}
		ids := make(chan string, 2)
		for range 2 {
			go func() {
				ctx := vault.OnRequestID(t.Context(), func(id string) { ids <- id })
				f.do(ctx, "kek", nil, run, func(n int) int { return n }, nil)
			}()
		}
		synctest.Wait()
		close(letGo)
		require.Equal(t, "the id", <-ids)
		require.Equal(t, "the id", <-ids)
	})
}

// What has proven itself is a key pair, not a name: another public key under the same
// version has to prove itself anew, and a key of another name or version as well.
func TestWhatIsProven(t *testing.T) {
	l := newLocalKeys(wall{time.Now()})
	id := vault.KeyID{Vault: "https://contoso.vault.azure.net", Name: "kek", Version: "0123456789abcdef0123456789abcdef"}
	fp := sha256.Sum256([]byte("one public key"))
	require.False(t, l.isProven(id, fp))
	l.put(id.Versionless(), localKey{Key: vault.Key{ID: id}}, fp)
	require.True(t, l.isProven(id, fp))
	require.False(t, l.isProven(id, sha256.Sum256([]byte("another"))))
	require.False(t, l.isProven(id, [sha256.Size]byte{}))
	other := id
	other.Version = "f123456789abcdef0123456789abcdef"
	require.False(t, l.isProven(other, fp))
	l.forget("other")
	require.True(t, l.isProven(id, fp))
	l.forget("kek")
	require.False(t, l.isProven(id, fp))
	_, known := l.get(id.Versionless(), 0, time.Hour)
	require.False(t, known)
}

// What has been answered is asked anew, also while the answer is still being handed out.
func TestWhatIsAnsweredIsAskedAnew(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		f := newFlights[string, int](wall{time.Now()})
		var began atomic.Int32
		handOut := make(chan struct{})
		ask := func() chan int {
			done := make(chan int, 1)
			go func() {
				n, _ := f.do(t.Context(), "kek", nil, func(context.Context, *call) (int, error) { return int(began.Add(1)), nil },
					func(n int) int { <-handOut; return n }, nil)
				done <- n
			}()
			synctest.Wait()
			return done
		}
		one, two := ask(), ask()
		close(handOut)
		require.Equal(t, []int{1, 2}, []int{<-one, <-two})
	})
}
