import { quote } from '../machine/quote.ts'

/** One volume as a guest mounts it. */
export interface VolumeMount {
  /** Where the guest's kernel reaches the server. */
  address: string
  port: number
  /** The name of the export. */
  name: string
  /** Absolute path in the guest; made if need be. */
  path: string
  readOnly: boolean
}

/**
 * A script for a guest's shell that mounts volumes. The modules come with the bundle's `volume.cpio`: appended to the
 * guest's initramfs, or unpacked at its root.
 */
export function mountScript(mounts: readonly VolumeMount[]): string {
  return [loadModules, ...mounts.map(mountCommand), readAhead].join('\n')
}

const loadModules = 'modprobe nfsv4 || exit'

/**
 * The kernel's 128 KiB are one call at a time, and at level 3 each waits 16 ms for its answer. In a guest only NFS has
 * devices of major number 0 there.
 */
const readAhead = 'for device in /sys/class/bdi/0:*; do echo 4096 > $device/read_ahead_kb; done'

/**
 * The kernel takes these by itself: `-i` keeps busybox from looking for a program that helps. In a copy of a guest that
 * had the volume mounted it still is, and the kernel goes to the new server by itself.
 */
function mountCommand({ address, port, name, path, readOnly }: VolumeMount): string {
  const options = [
    ...['vers=4.1', 'proto=tcp', `addr=${address}`, 'clientaddr=0.0.0.0', `port=${port}`],
    // What the host changes is seen within a second; a server that is away is waited for, as a disk would be.
    ...['actimeo=1', 'hard', readOnly ? 'ro' : 'rw'],
  ]
  const source = quote(`${address}:/${name}`)
  const mount = `mkdir -p ${quote(path)} && mount -i -t nfs4 -o ${options.join(',')} ${source} ${quote(path)}`
  return `grep -qF ${quote(`${address}:/${name} `)} /proc/mounts || { ${mount}; } || exit`
}
