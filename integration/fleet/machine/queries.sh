# What is installed, as rpm and dpkg tell it; and what a subscription allows.

# Says in this format, as either tool writes it, each of the packages that is there.
query() {
    missing=0
    format=$1
    shift
    for p; do
        if has "$p"; then
            printf %b "$(printf %s "$format" | sed -e "s/[%\$]{\(NAME\|Package\|binary:Package\)}/$p/g" \
                -e 's/[%$]{\(VERSION\|Version\)}/1.0-1/g; s/1.0-1-%{RELEASE}/1.0-1/g; s/[%$]{RELEASE}/1/g' \
                -e 's/[%$]{ARCH}/x86_64/g; s/[%$]{Architecture}/amd64/g' \
                -e 's/${Status}/install ok installed/g; s/${db:Status-Status}/installed/g; s/${db:Status-Abbrev}/ii /g')"
        else
            missing=$((missing + 1))
            if [ $name = rpm ]; then say "package $p is not installed"; else
                printf 'dpkg-query: no packages found matching %s\n' "$p" >&2
            fi
        fi
    done
}

format= asked= wanted=
while [ $# -gt 0 ]; do
    case $1 in
        --qf | --queryformat | -f | --showformat) format=${2-}; [ $# -lt 2 ] || shift ;;
        --qf=* | --queryformat=* | --showformat=*) format=${1#*=} ;;
        -f?*) format=${1#-f} format=${format#=} ;;
        -qa | --get-selections) asked=-q wanted=$(cat "$known") ;;
        -*) asked=$asked$1 ;;
        *) wanted="$wanted $1" ;;
    esac
    shift
done

case $name,$asked in
    *,*--version*) say "$name 1.0" ;;
    *,--print-architecture) say amd64 ;;
    rpm,*q*)
        [ -n "$format" ] || format='%{NAME}-%{VERSION}.%{ARCH}\n'
        query "$format" $wanted
        exit $missing ;;
    dpkg,-s* | dpkg,--status* | dpkg-query,-s*)
        for p in $wanted; do
            has "$p" || die 1 "dpkg-query: package '$p' is not installed and no information is available"
            say "Package: $p${nl}Status: install ok installed${nl}Architecture: amd64${nl}Version: 1.0-1"
        done ;;
    dpkg*,-l* | dpkg*,--list*)
        query 'ii  ${Package}  ${Version}  ${Architecture}\n' ${wanted:-$(cat "$known")}
        [ $missing = 0 ] || exit 1 ;;
    dpkg*,-W* | dpkg*,--show*)
        [ -n "$format" ] || format='${Package}\t${Version}\n'
        query "$format" ${wanted:-$(cat "$known")}
        [ $missing = 0 ] || exit 1 ;;
    dpkg,--configure*) ;;
    subscription-manager,*--enable*)
        [ "$uid" = 0 ] || die 1 "This command requires root access to execute."
        for p in $(printf %s "$asked $wanted" | sed 's/--enable=*/ /g'); do
            [ "$p" = repos ] || grep -qxF -- "$p" $state/repositories 2>/dev/null || say "$p" >>$state/repositories || full
            say "Repository '$p' is enabled for this system."
        done ;;
    subscription-manager,*)
        case $wanted in
            *repos*) sed 's/^/Repo ID:   /' $state/repositories 2>/dev/null ;;
            *) say "Overall Status: Current" ;;
        esac ;;
esac
