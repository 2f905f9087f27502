import { resolve } from 'node:path'
import { NestvmError } from '../store/error.ts'

/** An image in a registry. */
export interface RegistryReference {
  kind: 'registry'
  /** Host with its port: `docker.io`, `localhost:5000`. */
  registry: string
  /** `library/alpine` */
  repository: string
  tag: string | undefined
  /** Counts more than the tag. */
  digest: string | undefined
}

/** An image in the local file system. */
export interface LocalReference {
  kind: 'oci' | 'oci-archive' | 'docker-archive'
  /** Absolute. */
  path: string
  /** Which of its images; the only one unless said. */
  name: string | undefined
}

export type Reference = RegistryReference | LocalReference

/**
 * `alpine`, `quay.io/fedora/fedora:42`, `localhost:5000/x@sha256:...`, `docker://...`, `oci:DIR[:TAG]`,
 * `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`. Short names mean what docker takes them for.
 * Throws `IMAGE_BAD_REFERENCE`.
 */
export function parseReference(text: string): Reference {
  const [, kind, rest = ''] = /^(oci|oci-archive|docker-archive):(.*)$/s.exec(text) ?? []
  if (kind === 'oci' || kind === 'oci-archive' || kind === 'docker-archive') {
    const [, path = '', name] = /^([^:]*)(?::(.+))?$/s.exec(rest) ?? []
    if (path === '' || rest.includes('\0')) throw badReference(text, 'a path has to follow the colon')
    return { kind, path: resolve(path), name }
  }
  return parseRegistryReference(text.replace(/^docker:\/\//, ''))
}

/** One spelling for each image, which `parseReference` takes too. */
export function formatReference(reference: Reference): string {
  if (reference.kind !== 'registry') {
    return `${reference.kind}:${reference.path}${reference.name === undefined ? '' : `:${reference.name}`}`
  }
  const { registry, repository, tag, digest } = reference
  return `${registry}/${repository}${tag ? `:${tag}` : ''}${digest ? `@${digest}` : ''}`
}

export function parseDigest(text: string): { algorithm: 'sha256' | 'sha512'; hex: string } | undefined {
  const [, algorithm, hex = ''] = /^(sha256|sha512):([0-9a-f]+)$/.exec(text) ?? []
  if (algorithm === 'sha256' && hex.length === 64) return { algorithm, hex }
  if (algorithm === 'sha512' && hex.length === 128) return { algorithm, hex }
  return undefined
}

/** The grammar is that of distribution/reference. */
function parseRegistryReference(text: string): RegistryReference {
  const [, name = '', tag, digest] = /^([^@]*?)(?::(\w[\w.-]{0,127}))?(?:@(.+))?$/s.exec(text) ?? []
  if (digest !== undefined && parseDigest(digest) === undefined) throw badReference(text, `${digest} is no digest`)
  const slash = name.indexOf('/')
  const first = slash < 0 ? '' : name.slice(0, slash)
  // As docker has it: a name's first part is a host when it cannot be a user of Docker Hub.
  const hasHost = first === 'localhost' || /[.:A-Z]/.test(first)
  const registry = hasHost ? first.replace(/^(index|registry-1)\.docker\.io$/, 'docker.io') : 'docker.io'
  const path = hasHost ? name.slice(slash + 1) : name
  if (!host.test(registry)) throw badReference(text, `${registry} is no host`)
  if (/[A-Z]/.test(path)) throw badReference(text, 'names of images have small letters only')
  if (!repository.test(path) || path.length > 255) throw badReference(text, 'that is no name of an image')
  return {
    kind: 'registry',
    registry,
    repository: registry === 'docker.io' && !path.includes('/') ? `library/${path}` : path,
    tag: tag ?? (digest === undefined ? 'latest' : undefined),
    digest,
  }
}

const part = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*'
const repository = new RegExp(`^${part}(?:/${part})*$`)
const host = /^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:\d{1,5})?$/

function badReference(text: string, why: string): NestvmError {
  return new NestvmError('IMAGE_BAD_REFERENCE', `${JSON.stringify(text)} does not name an image: ${why}`, {
    hint: 'use NAME[:TAG], HOST[:PORT]/NAME[:TAG|@DIGEST], oci:DIR, oci-archive:FILE or docker-archive:FILE',
    details: { reference: text },
  })
}
