import type { TarEntry } from '../tar/entry.ts'

const none: ReadonlyMap<string, Buffer> = new Map()

/**
 * Those that go into the image. Squashfs has the namespaces user, trusted and security; ACLs (system) it cannot hold.
 * What overlayfs notes for itself must not come from outside: it redirects paths and hides files.
 * An image's SELinux labels mean nothing in the guest.
 */
export function keptXattrs(xattrs: ReadonlyMap<string, Buffer>): ReadonlyMap<string, Buffer> {
  const kept = [...xattrs].filter(
    ([name]) => kinds.test(name) && !ofOverlayfs.test(name) && name !== 'security.selinux',
  )
  return kept.length === 0 ? none : new Map(kept.map(([name, value]) => [name, Buffer.from(value)]))
}

const kinds = /^(user|trusted|security)\../s
const ofOverlayfs = /^(user|trusted)\.overlay\./

export function marksOpaque({ xattrs }: TarEntry): boolean {
  return overlay(xattrs, 'opaque')?.toString() === 'y'
}

export function marksWhiteout({ type, size, xattrs }: TarEntry): boolean {
  return type === 'file' && size === 0 && overlay(xattrs, 'whiteout') !== undefined
}

function overlay(xattrs: ReadonlyMap<string, Buffer>, name: string): Buffer | undefined {
  return xattrs.get(`trusted.overlay.${name}`) ?? xattrs.get(`user.overlay.${name}`)
}
