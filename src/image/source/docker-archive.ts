import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import * as z from 'zod'
import { NestvmError } from '../../store/error.ts'
import { check, parseJson } from '../manifest.ts'
import { formatReference, parseReference } from '../reference.ts'
import { type Files, findOrFail } from './directory.ts'
import { readDocument } from './layout.ts'
import { toSource } from './select.ts'
import type { Source, SourceRequest } from './source.ts'

const listSchema = z.array(
  z.object({ Config: z.string(), RepoTags: z.array(z.string()).nullish(), Layers: z.array(z.string()).nullable() }),
)

/** What `docker save` writes. Its layers have no digests of their own: those of the config are checked when unpacking. */
export async function openDockerArchive(
  files: Files,
  name: string | undefined,
  request: SourceRequest,
): Promise<Source> {
  const list = check(
    listSchema,
    parseJson(await readDocument(await findOrFail(files, 'manifest.json'))),
    'manifest.json',
  )
  const tags = list.flatMap(({ RepoTags }) => RepoTags ?? [])
  const fitting = list.filter(({ RepoTags }) => name === undefined || RepoTags?.some((tag) => sameName(tag, name)))
  const [image, ...others] = fitting
  if (image === undefined || others.length > 0) {
    const why = image === undefined ? `has no image ${name ?? 'at all'}` : 'holds several images'
    throw new NestvmError(
      'IMAGE_NOT_FOUND',
      `${request.name} ${why}; it has ${tags.join(', ') || 'none with a name'}`,
      {
        hint: tags[0] === undefined ? undefined : `append a name: docker-archive:${files.path}:${tags[0]}`,
        details: { names: tags },
      },
    )
  }
  const config = await readDocument(await findOrFail(files, image.Config))
  const manifestDigest = `sha256:${createHash('sha256').update(config).digest('hex')}`
  const paths = await Promise.all((image.Layers ?? []).map((layer) => findOrFail(files, layer)))
  const layers = await Promise.all(
    paths.map(async (path) => ({ size: (await stat(path)).size, file: async () => path })),
  )
  return toSource({ manifestDigest, config }, layers, request)
}

/** `alpine` also finds `docker.io/library/alpine:latest`. */
function sameName(tag: string, name: string): boolean {
  const full = (text: string) => formatReference(parseReference(text))
  return tag === name || full(tag) === full(name)
}
