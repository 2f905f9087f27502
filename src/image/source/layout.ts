import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { NestvmError } from '../../store/error.ts'
import { mostDocumentBytes, tooLongDocument } from '../limits.ts'
import { checkDigest, type Descriptor, type Document, parseManifest, wrongDigest } from '../manifest.ts'
import { parseDigest } from '../reference.ts'
import { type Files, findOrFail } from './directory.ts'
import { selectManifest, toSource } from './select.ts'
import type { Source, SourceRequest } from './source.ts'

const nameAnnotation = 'org.opencontainers.image.ref.name'

/** An OCI image layout: index.json and blobs by digest. */
export async function openLayout(files: Files, name: string | undefined, request: SourceRequest): Promise<Source> {
  const index = await readDocument(await findOrFail(files, 'index.json'))
  const root = { digest: '', mediaType: 'application/vnd.oci.image.index.v1+json', data: index }
  const blob = async (descriptor: Descriptor) => findOrFail(files, `blobs/${descriptor.digest.replace(':', '/')}`)
  const get = async (descriptor: Descriptor): Promise<Document> => {
    const data = await readDocument(await blob(descriptor))
    checkDigest(data, descriptor.digest, `a document of ${files.path}`)
    return { digest: descriptor.digest, mediaType: descriptor.mediaType, data }
  }
  const start = await chooseByName(root, name, request, get)
  const { manifest, digest } = await selectManifest(start, get, request)
  const { data: config } = await get(manifest.config)
  const layers = manifest.layers.map((layer) => ({
    size: layer.size,
    file: async () => checkedFile(await blob(layer), layer),
  }))
  return toSource({ manifestDigest: digest, config }, layers, request)
}

/** Among several images of a layout the name decides; among several platforms of one image the architecture. */
async function chooseByName(
  root: Document,
  name: string | undefined,
  request: SourceRequest,
  get: (descriptor: Descriptor) => Promise<Document>,
): Promise<Document> {
  const parsed = parseManifest(root)
  if (!('index' in parsed)) return root
  const { manifests } = parsed.index
  const names = [...new Set(manifests.flatMap(({ annotations }) => annotations?.[nameAnnotation] ?? []))]
  const fitting = manifests.filter(({ annotations }) => name === undefined || annotations?.[nameAnnotation] === name)
  if (fitting.length === 0 || (name === undefined && names.length > 1)) {
    const why = name === undefined ? 'holds several images' : `has no image ${name}`
    throw new NestvmError(
      'IMAGE_NOT_FOUND',
      `${request.name} ${why}; it has ${names.join(', ') || 'none with a name'}`,
      {
        hint:
          names[0] === undefined
            ? undefined
            : `append a name: ${request.name.split(':').slice(0, 2).join(':')}:${names[0]}`,
        details: { names },
      },
    )
  }
  const [only, ...others] = fitting
  if (only && others.length === 0) return get(only)
  return { ...root, data: Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: fitting })) }
}

export async function readDocument(path: string): Promise<Buffer> {
  if ((await stat(path)).size > mostDocumentBytes) throw tooLongDocument(path)
  return readFile(path)
}

async function checkedFile(path: string, { digest, size }: Descriptor): Promise<string> {
  const hash = createHash(parseDigest(digest)?.algorithm ?? 'sha256')
  let bytes = 0
  for await (const chunk of createReadStream(path, { end: size })) {
    hash.update(chunk)
    bytes += chunk.length
  }
  const found = `${digest.split(':')[0]}:${hash.digest('hex')}`
  if (found !== digest || bytes !== size)
    throw wrongDigest(path, `${digest}, ${size} bytes`, `${found}, ${bytes} bytes or more`)
  return path
}
