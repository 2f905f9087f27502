import { createHash } from 'node:crypto'
import * as z from 'zod'
import { NestvmError } from '../store/error.ts'
import { parseDigest } from './reference.ts'

// The documents of the OCI image specification, and of docker's "image manifest version 2, schema 2".

export const digestSchema = z.string().refine((text) => parseDigest(text) !== undefined, 'is no digest')

const platformSchema = z.object({
  architecture: z.string().default(''),
  os: z.string().default(''),
  variant: z.string().optional(),
})

export type Platform = z.infer<typeof platformSchema>

const descriptorSchema = z.object({
  mediaType: z.string(),
  digest: digestSchema,
  size: z.int().nonnegative(),
  urls: z.array(z.string()).nullish(),
  platform: platformSchema.nullish(),
  annotations: z.record(z.string(), z.string()).nullish(),
})

export type Descriptor = z.infer<typeof descriptorSchema>

const indexSchema = z.object({
  schemaVersion: z.literal(2),
  manifests: z.array(descriptorSchema),
})

export type Index = z.infer<typeof indexSchema>

const manifestSchema = z.object({
  schemaVersion: z.literal(2),
  config: descriptorSchema,
  layers: z.array(descriptorSchema),
})

export type Manifest = z.infer<typeof manifestSchema>

export const indexTypes = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
]

export const manifestTypes = [
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
]

const configTypes = ['application/vnd.oci.image.config.v1+json', 'application/vnd.docker.container.image.v1+json']

/** Of layers; their bytes tell how they are compressed. */
const layerTypes = [
  'application/vnd.oci.image.layer.v1.tar',
  'application/vnd.oci.image.layer.v1.tar+gzip',
  'application/vnd.oci.image.layer.v1.tar+zstd',
  'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.docker.image.rootfs.diff.tar.gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd',
]

/** A document as it came, whose digest has been checked. */
export interface Document {
  digest: string
  /** What it was said to be; the document itself may say so too. */
  mediaType: string
  data: Buffer
}

/** Throws `IMAGE_BAD_MANIFEST`, or `IMAGE_UNSUPPORTED` for what is no image that nestvm can run. */
export function parseManifest(document: Document): { index: Index } | { manifest: Manifest } {
  const json = parseJson(document.data)
  const said = z.object({ mediaType: z.string().optional(), schemaVersion: z.unknown() }).safeParse(json)
  const type = said.data?.mediaType ?? document.mediaType.split(';')[0]?.trim() ?? ''
  if (said.data?.schemaVersion === 1 || type.includes('docker.distribution.manifest.v1+')) {
    throw unsupported('it has the old format of docker (schema 1), which does not say what its layers unpack to', type)
  }
  // Documents need not say what they are; then their shape tells.
  const known = [...indexTypes, ...manifestTypes].includes(type)
  if (!known && !/^(application\/json|application\/octet-stream|text\/plain|)$/.test(type)) {
    throw unsupported(`its manifest is of the unknown type ${type}`, type)
  }
  const isIndex = known ? indexTypes.includes(type) : z.object({ manifests: z.unknown() }).safeParse(json).success
  if (isIndex) return { index: check(indexSchema, json, 'index') }
  const manifest = check(manifestSchema, json, 'manifest')
  checkTypes(manifest)
  return { manifest }
}

export function check<S extends z.ZodType>(schema: S, json: unknown, what: string): z.output<S> {
  const result = schema.safeParse(json)
  if (result.success) return result.data
  throw new NestvmError('IMAGE_BAD_MANIFEST', `the image's ${what} is damaged: ${z.prettifyError(result.error)}`, {
    cause: result.error,
  })
}

/** Undefined for what is not JSON, which no schema accepts. */
export function parseJson(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString('utf8'))
  } catch {
    return undefined
  }
}

/** Throws `IMAGE_BAD_DIGEST`. */
export function checkDigest(data: Buffer, digest: string, what: string): void {
  const algorithm = parseDigest(digest)?.algorithm ?? 'sha256'
  const found = `${algorithm}:${createHash(algorithm).update(data).digest('hex')}`
  if (found !== digest) throw wrongDigest(what, digest, found)
}

export function wrongDigest(what: string, expected: string, found: string): NestvmError {
  return new NestvmError('IMAGE_BAD_DIGEST', `${what} should be ${expected}, but what came is ${found}`, {
    hint: 'the registry, a mirror or a proxy is broken or hostile: try another, or do not use the image',
    details: { expected, found },
  })
}

function checkTypes({ config, layers }: Manifest): void {
  if (!configTypes.includes(config.mediaType)) {
    throw unsupported(`it is no container image but an artifact of the type ${config.mediaType}`, config.mediaType)
  }
  for (const { mediaType, urls } of layers) {
    if (/nondistributable|foreign/.test(mediaType) || (urls?.length ?? 0) > 0) {
      throw unsupported('it has a layer that is to be had elsewhere only (a foreign layer)', mediaType)
    }
    if (!layerTypes.includes(mediaType)) throw unsupported(`it has a layer of the unknown type ${mediaType}`, mediaType)
  }
}

function unsupported(why: string, mediaType: string): NestvmError {
  return new NestvmError('IMAGE_UNSUPPORTED', `nestvm cannot use this image: ${why}`, { details: { mediaType } })
}
