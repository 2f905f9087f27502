import { NestvmError } from '../../store/error.ts'

/**
 * The components of an entry's name, as a path below the image's root: `./a//b/` and `/a/b` are `a`, `b`, as podman and
 * docker have it. Throws `IMAGE_BAD_PATH` for `..`, which no image needs, and for what Linux cannot name.
 */
export function entryPath(name: string): string[] {
  return components(name, (what) => badPath(name, what))
}

/** The same for the target of a hard link. Throws `IMAGE_BAD_LINK`. */
export function hardLinkPath(link: string, name: string): string[] {
  const path = components(link, (what) => badLink(name, link, what))
  if (path.length === 0) throw badLink(name, link, 'is the root')
  return path
}

export function badPath(name: string, what: string): NestvmError {
  return new NestvmError('IMAGE_BAD_PATH', `the image has the file ${printable(name)}, whose name ${what}`, {
    hint: 'the image is broken or hostile: do not use it',
    details: { path: printable(name) },
  })
}

export function badLink(name: string, link: string, what: string): NestvmError {
  const message = `the image has ${printable(name)}, a hard link to ${printable(link)}, which ${what}`
  return new NestvmError('IMAGE_BAD_LINK', message, {
    hint: 'the image is broken or hostile: do not use it',
    details: { path: printable(name), link: printable(link) },
  })
}

/** Bytes of a name and of a path in Linux: NAME_MAX and PATH_MAX with its NUL. */
const mostNameBytes = 255
const mostPathBytes = 4095

function components(path: string, refuse: (what: string) => NestvmError): string[] {
  if (path === '') throw refuse('is empty')
  if (path.includes('\0')) throw refuse('has a NUL')
  if (path.length > mostPathBytes) throw refuse('is too long')
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) throw refuse('leads upwards (..)')
  if (parts.some((part) => part.length > mostNameBytes)) throw refuse('has a component that is too long')
  return parts
}

/** A byte string for a message: control characters of a hostile name stay off the terminal. */
function printable(bytes: string): string {
  const text = JSON.stringify(Buffer.from(bytes, 'latin1').toString('utf8').slice(0, 300))
  return text.replace(/[\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, '?')
}
