package postgres

// A block that is out of line lies in pieces of pieceSize bytes, each of which is a row with an entry of an index,
// written and removed with it (TOAST_MAX_CHUNK_SIZE of a server with pages of 8 KiB:
// https://www.postgresql.org/docs/current/storage-toast.html). A block of 4 KiB is sealed two pieces and a
// little more. So a tail of at most tailSize bytes, behind whole pieces, is in the row: with a server of other pages
// that saves nothing, and is right all the same. It is small because who replaces a record copies the row.
const (
	pieceSize = 1996
	tailSize  = 512
)

// cut returns a sealed block as the columns data and tail have it. tail is nil where there is none; so is data, of a
// row without a block.
func cut(sealed []byte) (data, tail []byte) {
	n := len(sealed) - len(sealed)%pieceSize
	if n == 0 || n == len(sealed) || len(sealed)-n > tailSize {
		return sealed, nil
	}
	return sealed[:n:n], sealed[n:]
}
