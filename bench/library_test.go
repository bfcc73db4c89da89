package bench

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
)

var librarySizes = [...]int{16, 64, 4 << 10, 64 << 10}

// BenchmarkLibrary is what the standard library does with AES-256 under one key that is expanded
// already, and is no scheme: AES-GCM ("gcm"), and AES-CTR ("ctr"), which authenticates nothing and is
// what CockroachDB puts under Pebble. A CTR stream is made for each block, at a place of its own, as a
// read at random has to. "openssl" is AES-256-GCM of the openssl that is installed, by its own clock
// ("openssl speed"), which tells what the processor can do: newer ones use VAES where there is any.
func BenchmarkLibrary(b *testing.B) {
	block, err := aes.NewCipher(random(32))
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range librarySizes {
		data := random(size)
		b.Run(fmt.Sprintf("size=%d/impl=gcm", size), func(b *testing.B) {
			gcm, err := cipher.NewGCM(block)
			if err != nil {
				b.Fatal(err)
			}
			nonce, dst := make([]byte, gcm.NonceSize()), make([]byte, 0, size+gcm.Overhead())
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				nonce[0], nonce[1], nonce[2], nonce[3] = byte(i), byte(i>>8), byte(i>>16), byte(i>>24)
				dst = gcm.Seal(dst[:0], nonce, data, nil)
			}
		})
		b.Run(fmt.Sprintf("size=%d/impl=ctr", size), func(b *testing.B) {
			iv, dst := random(aes.BlockSize), make([]byte, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				iv[0], iv[1], iv[2], iv[3] = byte(i), byte(i>>8), byte(i>>16), byte(i>>24)
				cipher.NewCTR(block, iv).XORKeyStream(dst, data)
			}
		})
		if size < 4<<10 { // there the call is most of it
			continue
		}
		b.Run(fmt.Sprintf("size=%d/impl=openssl", size), func(b *testing.B) {
			program, err := exec.LookPath("openssl")
			if err != nil {
				b.Skip("no openssl is installed")
			}
			// One second of its own, whatever b.N: it reports the rate, which stands in the place of a time.
			out, err := exec.CommandContext(b.Context(), program, "speed", "-mr", "-elapsed", "-seconds", "1", "-bytes", strconv.Itoa(size), "-evp", "aes-256-gcm").Output()
			if err != nil {
				b.Skipf("openssl speed: %v", err)
			}
			rate, err := opensslRate(out)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() { // the work was done above
			}
			b.ReportMetric(float64(size)/rate*1e9, "ns/op")
			b.ReportMetric(rate/1e6, "MB/s")
		})
	}
}

// opensslRate reads the rate, in bytes a second, from what "openssl speed -mr" prints: a line
// +F:number:cipher:rate.
func opensslRate(out []byte) (float64, error) {
	for line := range bytes.Lines(out) {
		if fields := bytes.Split(bytes.TrimSpace(line), []byte(":")); len(fields) == 4 && string(fields[0]) == "+F" {
			rate, err := strconv.ParseFloat(string(fields[3]), 64)
			if err == nil && rate <= 0 {
				err = fmt.Errorf("a rate of %v", rate)
			}
			return rate, err
		}
	}
	return 0, fmt.Errorf("openssl speed prints no rate: %q", out)
}

func TestOpensslRate(t *testing.T) {
	rate, err := opensslRate([]byte("+DT:AES-256-GCM:1:4096\n+R:1500000:AES-256-GCM:1.000000\n+F:22:AES-256-GCM:6144000000.00\n"))
	if err != nil || rate != 6144000000 {
		t.Fatal(rate, err)
	}
	for _, out := range []string{"", "+F:22:AES-256-GCM:much\n", "+F:22:AES-256-GCM:0\n"} {
		if _, err := opensslRate([]byte(out)); err == nil {
			t.Fatalf("%q has no rate", out)
		}
	}
}
