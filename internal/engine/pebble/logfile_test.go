package pebble

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// askedFile remembers what of the disk it was asked for.
type askedFile struct {
	vfs.File
	asked [][2]int64
}

func (f *askedFile) Preallocate(offset, length int64) error {
	f.asked = append(f.asked, [2]int64{offset, length})
	return nil
}

func (f *askedFile) Write(p []byte) (int, error) { return len(p), nil }

// A log takes the disk in two steps, without a gap, ahead of what is written, and no more than
// Pebble asked for; another file as it is asked to.
func TestLogsTakeTheDiskInSteps(t *testing.T) {
	asked := &askedFile{}
	f, err := inSteps(asked, nil, "store/000007.log")
	require.NoError(t, err)
	const most = 70 << 20
	write := func(n int64) {
		_, err := f.Write(make([]byte, n))
		require.NoError(t, err)
	}
	write(100)
	require.Equal(t, [][2]int64{{0, logStep}}, asked.asked, "with the first write: Pebble asks with the second")
	require.NoError(t, f.Preallocate(0, most))
	write(logStep/2 - 100)
	require.Len(t, asked.asked, 1, "a store with little in it takes little")
	write(1)
	steps := [][2]int64{{0, logStep}, {logStep, most - logStep}}
	require.Equal(t, steps, asked.asked, "three extents at most, if the two lie apart")
	write(most - 3*logStep)
	require.Equal(t, steps, asked.asked)
	require.NoError(t, f.Preallocate(most, most)) // a log that outgrows what Pebble asked for
	require.Equal(t, steps, asked.asked, "not before it is needed")
	write(2 * logStep)
	require.Equal(t, append(steps, [2]int64{most, most}), asked.asked)

	large := &askedFile{}
	f, err = inSteps(large, nil, "store/000009.log")
	require.NoError(t, err)
	require.NoError(t, f.Preallocate(0, most))
	write(3 * logStep) // one write that is larger than the first step
	require.Equal(t, steps, large.asked)

	other := &askedFile{}
	g, err := inSteps(other, nil, "store/000008.sst")
	require.NoError(t, err)
	require.NoError(t, g.Preallocate(0, most))
	require.Equal(t, [][2]int64{{0, most}}, other.asked)
}
