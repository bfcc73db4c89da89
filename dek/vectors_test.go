package dek_test

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/test/wycheproof"
)

// hexBytes is a JSON string of hexadecimal digits.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// TestWycheproof opens the AES-GCM vectors of this package's parameters:
// AES-256, a 96-bit nonce, a 128-bit tag.
func TestWycheproof(t *testing.T) {
	data, err := wycheproof.Read("aes_gcm_test.json")
	require.NoError(t, err)
	var file struct {
		TestGroups []struct {
			IVSize, KeySize, TagSize int
			Tests                    []struct {
				TcID                       int
				Comment, Result            string
				Key, IV, AAD, Msg, CT, Tag hexBytes
			}
		}
	}
	require.NoError(t, json.Unmarshal(data, &file))
	valid, invalid := 0, 0
	for _, g := range file.TestGroups {
		if g.KeySize != 8*dek.Size || g.IVSize != 96 || g.TagSize != 128 {
			continue
		}
		for _, v := range g.Tests {
			k, err := dek.FromBytes(v.Key)
			require.NoError(t, err)
			got, err := k.Open(nil, slices.Concat(v.IV, v.CT, v.Tag), v.AAD)
			switch v.Result {
			case "valid":
				valid++
				require.NoError(t, err, "%d %s", v.TcID, v.Comment)
				require.Equal(t, hex.EncodeToString(v.Msg), hex.EncodeToString(got), "%d %s", v.TcID, v.Comment)
			case "invalid":
				invalid++
				require.ErrorIs(t, err, dek.ErrCorrupt, "%d %s", v.TcID, v.Comment)
				require.Nil(t, got)
			default:
				t.Fatalf("%d: result %q", v.TcID, v.Result)
			}
		}
	}
	require.Equal(t, 39, valid)
	require.Equal(t, 27, invalid)
}
