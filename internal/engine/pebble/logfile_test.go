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

// A log takes the disk step by step, without gaps, ahead of what is written, and no more than
// Pebble asked for; another file as it is asked to.
func TestLogsTakeTheDiskInSteps(t *testing.T) {
	asked := &askedFile{}
	f, err := inSteps(asked, nil, "store/000007.log")
	require.NoError(t, err)
	const most = 70 << 20
	require.NoError(t, f.Preallocate(0, most))
	require.Equal(t, [][2]int64{{0, logStep}}, asked.asked)
	written := int64(0)
	write := func(n int64) {
		_, err := f.Write(make([]byte, n))
		require.NoError(t, err)
		written += n
	}
	write(logStep / 2)
	require.Len(t, asked.asked, 1)
	for written < most {
		write(1 << 20)
		end := int64(0)
		for _, a := range asked.asked {
			require.Equal(t, end, a[0], "no gap, and nothing twice")
			require.LessOrEqual(t, a[1], int64(logStep))
			end += a[1]
		}
		require.GreaterOrEqual(t, end, min(written+logStep/2, most), "ahead of what is written")
		require.Less(t, end, written+2*logStep)
		require.LessOrEqual(t, end, int64(most))
	}
	write(10 << 20)
	require.NoError(t, f.Preallocate(most, most))
	last := asked.asked[len(asked.asked)-1]
	require.GreaterOrEqual(t, last[0]+last[1], written, "a write that was larger than a step")

	other := &askedFile{}
	g, err := inSteps(other, nil, "store/000008.sst")
	require.NoError(t, err)
	require.NoError(t, g.Preallocate(0, most))
	require.Equal(t, [][2]int64{{0, most}}, other.asked)
}
