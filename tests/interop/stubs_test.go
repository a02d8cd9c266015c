package interop

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// The stubs are those of our .proto files.
func TestStubs_AreGeneratedFromTheProtoFiles(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("protoc"); err != nil {
		skip(t, "no protoc (Debian: protobuf-compiler)")
	}
	fresh := t.TempDir()
	output, err := exec.Command("gen/generate.sh", fresh).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	wanted, found := stubs(t, fresh), stubs(t, "gen")
	if len(wanted) == 0 || !slices.Equal(keys(wanted), keys(found)) {
		t.Fatalf("generated: %q, stored: %q", keys(wanted), keys(found))
	}
	for name, text := range wanted {
		if !bytes.Equal(text, found[name]) {
			t.Errorf("%s differs; run tests/interop/gen/generate.sh", name)
		}
	}
}

func stubs(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = withoutVersions(text)
		return err
	}))
	return files
}

// withoutVersions drops the comment that says which protoc was at work.
func withoutVersions(text []byte) []byte {
	var kept [][]byte
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("//")) || !bytes.Contains(line, []byte("protoc ")) {
			kept = append(kept, line)
		}
	}
	return bytes.Join(kept, nil)
}

func keys(files map[string][]byte) []string {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
