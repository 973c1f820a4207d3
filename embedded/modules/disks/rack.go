package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// rack is the folder of all volumes and snapshots. A volume is a file `<id>.disk`, beside which `<id>.node` names the
// node that it is attached to, or a folder `<id>.shared` when several nodes may have it at a time. A snapshot is a file
// `<id>.snapshot`, beside which `<id>.source` names the volume that it was taken of.
type rack string

const (
	disk     = ".disk"
	attached = ".node"
	shared   = ".shared"
	snapshot = ".snapshot"
	source   = ".source"
)

// What is being made has this before its name, and becomes visible in one step.
const draft = "draft-"

var allowed = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

func (r rack) path(id, kind string) string { return filepath.Join(string(r), id+kind) }

// prepare makes the folder, and removes what was being made when somebody was ended.
func (r rack) prepare() error {
	if err := os.MkdirAll(string(r), 0o700); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(string(r), draft+"*"))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// find is where a volume is, be it for one node or for several. Its error is what a caller of the driver is told.
func (r rack) find(id string) (path string, forSeveral bool, err error) {
	if !allowed.MatchString(id) {
		return "", false, status.Errorf(codes.NotFound, "there is no volume %q", id)
	}
	for _, kind := range []string{disk, shared} {
		if _, err = os.Stat(r.path(id, kind)); err == nil {
			return r.path(id, kind), kind == shared, nil
		}
	}
	return "", false, status.Errorf(codes.NotFound, "volume %s: %v", id, err)
}

// copy makes a file like another one, holes included; where there is none to copy, an empty one.
func (r rack) copy(from, to string, size int64) error {
	made := filepath.Join(string(r), draft+filepath.Base(to))
	defer os.Remove(made)
	if from == "" {
		if err := os.WriteFile(made, nil, 0o600); err != nil {
			return err
		}
	} else if said, err := exec.Command("cp", "--sparse=always", "--reflink=auto", from, made).CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(said)))
	}
	if err := os.Truncate(made, size); err != nil {
		return err
	}
	return os.Rename(made, to)
}

// note writes one word into a file, read what is in it; nothing where there is none.
func (r rack) note(id, kind, word string) error {
	return os.WriteFile(r.path(id, kind), []byte(word), 0o600)
}

func (r rack) read(id, kind string) string {
	found, _ := os.ReadFile(r.path(id, kind))
	return strings.TrimSpace(string(found))
}

// remove removes files that may have gone already.
func (r rack) remove(id string, kinds ...string) error {
	var failed error
	for _, kind := range kinds {
		failed = errors.Join(failed, os.RemoveAll(r.path(id, kind)))
	}
	return failed
}
