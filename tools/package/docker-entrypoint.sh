#!/bin/sh
# docker-entrypoint.sh COMMAND...: prepares the configuration of a container, then becomes the command.
# `target` in the environment, even empty, names the only backend.
#
# The configuration is changed in place if it can be, as the image of the C++ version does it, so that
# a mounted file of that version serves. CONFIG_DIR is for tests and for building the image.
set -e
dir=${CONFIG_DIR:-/etc/pushpin}

if [ -w "$dir/pushpin.conf" ]; then
    changed=$(sed -e 's/^services=.*/services=connmgr,proxy,handler/' \
        -e 's/^http_port=.*/http_port=7999/' \
        -e 's,^push_in_spec=.*,push_in_spec=tcp://*:5560,' \
        -e 's/^push_in_http_addr=.*/push_in_http_addr=0.0.0.0/' \
        -e 's,^push_in_sub_specs\{0\,1\}=.*,push_in_sub_specs=tcp://*:5562,' \
        -e 's,^command_spec=.*,command_spec=tcp://*:5563,' \
        "$dir/pushpin.conf")
    # a mounted file cannot be replaced, only written
    printf '%s\n' "$changed" >"$dir/pushpin.conf"
else
    echo "docker-entrypoint.sh: unable to write to $dir/pushpin.conf, readonly"
fi

if [ -n "${target+set}" ]; then
    if [ -w "$dir/routes" ]; then
        echo "* $target,over_http" >"$dir/routes"
    elif [ "$1" = pushpin ]; then
        set -- "$@" --route="* $target,over_http"
    else
        echo "docker-entrypoint.sh: unable to write to $dir/routes, target is not used"
    fi
fi

exec "$@"
