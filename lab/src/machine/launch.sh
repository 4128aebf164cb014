# Starts one machine. Called by the lab, never by hand: sh launch.sh, with
#   LAB_GROUP        the machine's control group, below the root of each hierarchy
#   LAB_GROUPS       its directory in each hierarchy, one a line
#   LAB_OVERLAY      the options of the overlay that is its root
#   LAB_ROOT         where that is mounted, in a mount namespace of our own, so
#                    that the mount ends with the machine
# and the systemd-nspawn command as arguments.
set -eu
IFS='
'
for group in $LAB_GROUPS; do
    echo $$ > "$group/cgroup.procs"
done

# A systemd that shares a control group with anybody else moves all of them into
# its own scope: the host would soon be unable to fork. So nothing is started
# unless the kernel itself says that we are alone, in every hierarchy.
while IFS= read -r line; do
    case "$line" in
        *:*:*"/$LAB_GROUP") ;;
        *) echo "refusing to start a systemd: not in its own control group ($line)" >&2; exit 1 ;;
    esac
done < /proc/self/cgroup

mount -t overlay overlay -o "$LAB_OVERLAY" "$LAB_ROOT"
exec "$@"
