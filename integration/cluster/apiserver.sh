#!/usr/bin/env bash
# Makes a real kube-apiserver, 1.20.2, of the source package of Debian 12: about 6 minutes of processor time, and 2.5 GB
# of disk that are free again afterwards.
#
#   integration/cluster/apiserver.sh OUT     writes the program OUT; does nothing where it is there already
#
# Nothing is installed, and no list of apt's own is changed: packages are fetched by apt with lists of their own, which it
# verifies by Debian's keys, and are unpacked below a folder that is gone at the end.
set -euo pipefail

[ $# = 1 ] || { echo "usage: integration/cluster/apiserver.sh OUT" >&2; exit 64; }
[ -x "$1" ] && exit 0
mkdir -p "$(dirname "$1")"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
version=1.20.5+really1.20.2-1.1+deb12u1
keys=/usr/share/keyrings/debian-archive-keyring.gpg
for program in apt-get dpkg tar; do
    command -v "$program" >/dev/null || { echo "missing: $program. This works on Debian and Ubuntu only." >&2; exit 69; }
done
[ -e "$keys" ] || { echo "missing: $keys. Install debian-archive-keyring." >&2; exit 69; }

work=$(mktemp -d "${TMPDIR:-/tmp}/kube-apiserver.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,debs,go,reflect2,home,parts}
for kind in deb deb-src; do
    echo "$kind [signed-by=$keys] http://deb.debian.org/debian bookworm main"
    echo "$kind [signed-by=$keys] http://deb.debian.org/debian-security bookworm-security main"
done >"$work/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/parts";
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
APT::Sandbox::User "";
Acquire::Languages "none";
CONF
export APT_CONFIG=$work/apt.conf
apt-get update -qq
cd "$work/debs"
apt-get download -qq golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev
for package in golang-1.19-*.deb; do dpkg -x "$package" "$work/go"; done
dpkg -x golang-github-modern-go-reflect2-dev_*.deb "$work/reflect2"
cd "$work"
apt-get source -qq --download-only "kubernetes=$version"
tar xzf kubernetes_*.orig.tar.gz
tree=$work/kubernetes-1.20.2
# Its reflect2 1.0.1 breaks under Go 1.18 and newer; Debian's 1.0.2 does not.
rm -rf "$tree/vendor/github.com/modern-go/reflect2"
cp -r "$work/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2" "$tree/vendor/github.com/modern-go/"
rm -f "$tree/vendor/github.com/modern-go/reflect2/go.mod"

export GOROOT=$work/go/usr/lib/go-1.19 GOPATH=$tree/.go GO111MODULE=off CGO_ENABLED=0 GOCACHE=$work/build GOFLAGS='' \
    HOME=$work/home GOPROXY=off
export PATH=$GOROOT/bin:$PATH
mkdir -p "$GOPATH/src/k8s.io"
ln -sfn ../../.. "$GOPATH/src/k8s.io/kubernetes"
cd "$GOPATH/src/k8s.io/kubernetes"
go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
mark='\+k8s:openapi-gen='
described=$(grep -rlE "$mark" --include='*.go' staging/src/k8s.io pkg plugin cmd |
    grep -vE '_test.go|staging/src/k8s.io/(code-generator|sample-apiserver)/' | xargs -n1 dirname | sort -u |
    sed 's#^staging/src/#k8s.io/kubernetes/vendor/#; t; s#^#k8s.io/kubernetes/#' | paste -sd,)
"$work/openapi-gen" --logtostderr -i "$described" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/report.txt"
flags="-s -w"
for package in k8s.io/kubernetes/vendor/k8s.io/component-base/version k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version; do
    flags="$flags -X $package.gitVersion=v1.20.2 -X $package.gitMajor=1 -X $package.gitMinor=20"
    flags="$flags -X $package.gitTreeState=clean -X $package.buildDate=2021-01-13T13:20:00Z"
done
go build -p 2 -ldflags "$flags" -o "$work/kube-apiserver" ./cmd/kube-apiserver
"$work/kube-apiserver" --version
mv "$work/kube-apiserver" "$out"
