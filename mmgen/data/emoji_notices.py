"""The notices that must go with emoji pictures, clips and captions (LICENSES.md of a set)."""

from __future__ import annotations

_MIT = """\
MIT License

Copyright (c) Microsoft Corporation.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

"""

_UNICODE = """\
## Unicode License v3 (captions)

UNICODE LICENSE V3

COPYRIGHT AND PERMISSION NOTICE

Copyright (c) 1991-2025 Unicode, Inc.

NOTICE TO USER: Carefully read the following legal agreement. BY DOWNLOADING, INSTALLING, COPYING
OR OTHERWISE USING DATA FILES, AND/OR SOFTWARE, YOU UNEQUIVOCALLY ACCEPT, AND AGREE TO BE BOUND BY,
ALL OF THE TERMS AND CONDITIONS OF THIS AGREEMENT. IF YOU DO NOT AGREE, DO NOT DOWNLOAD, INSTALL,
COPY, DISTRIBUTE OR USE THE DATA FILES OR SOFTWARE.

Permission is hereby granted, free of charge, to any person obtaining a copy of data files and any
associated documentation (the "Data Files") or software and any associated documentation (the
"Software") to deal in the Data Files or Software without restriction, including without limitation
the rights to use, copy, modify, merge, publish, distribute, and/or sell copies of the Data Files
or Software, and to permit persons to whom the Data Files or Software are furnished to do so,
provided that either (a) this copyright and permission notice appear with all copies of the Data
Files or Software, or (b) this copyright and permission notice appear in associated Documentation.

THE DATA FILES AND SOFTWARE ARE PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE
AND NONINFRINGEMENT OF THIRD PARTY RIGHTS.

IN NO EVENT SHALL THE COPYRIGHT HOLDER OR HOLDERS INCLUDED IN THIS NOTICE BE LIABLE FOR ANY CLAIM,
OR ANY SPECIAL INDIRECT OR CONSEQUENTIAL DAMAGES, OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF
USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION,
ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THE DATA FILES OR SOFTWARE.

Except as contained in this notice, the name of a copyright holder shall not be used in advertising
or otherwise to promote the sale, use or other dealings in these Data Files or Software without
prior written authorization of the copyright holder.
"""

NOTICES = f"""\
# Licences of the pictures and captions in this folder

The pictures were made from six npm packages (exact versions in manifest.json) by rasterising
their drawings on white. Pass this file on with the pictures, with data made from them and with
models trained on them.

- `twemoji` (@discordapp/twemoji), CC BY 4.0: Twemoji, graphics (c) Twitter, Inc. and other
  contributors, licensed under CC BY 4.0; rasterised.
- `noto` (@iconify-json/noto), Apache-2.0: Noto Emoji, (c) Google LLC; rasterised.
- `blob` (@iconify-json/noto-v1), Apache-2.0: Noto Emoji v1, (c) Google LLC; rasterised.
- `flat` (@iconify-json/fluent-emoji-flat) and `ink` (@iconify-json/fluent-emoji-high-contrast),
  MIT: Fluent Emoji, (c) Microsoft Corporation; rasterised.
- `3d` (@lobehub/fluent-emoji-3d), MIT: Fluent Emoji, (c) Microsoft Corporation, packed by LobeHub;
  scaled and put on white.
- Captions (names and keywords by way of emojibase-data), Unicode-3.0: Unicode CLDR, (c) Unicode,
  Inc.; articles and templates were added.

## CC BY 4.0 (twemoji)

Twemoji, graphics (c) Twitter, Inc. and other contributors, licensed under CC BY 4.0; rasterised.
Source: https://github.com/discord/twemoji. Licence: https://creativecommons.org/licenses/by/4.0/

## Apache License 2.0 (noto, blob)

Noto Emoji, Copyright Google LLC. Source: https://github.com/googlefonts/noto-emoji. Licensed
under the Apache License, Version 2.0; you may not use these pictures except in compliance with
it. A copy is at https://www.apache.org/licenses/LICENSE-2.0. Unless required by applicable law or
agreed to in writing, they are distributed on an "AS IS" basis, without warranties or conditions
of any kind, either express or implied. The drawings were changed: they were rasterised.

## MIT (flat, 3d, ink)

Fluent Emoji. Source: https://github.com/microsoft/fluentui-emoji
Packing of the 3d pictures: Copyright (c) LobeHub, https://github.com/lobehub/fluent-emoji

{_MIT}{_UNICODE}"""

CLIP_NOTICES = f"""\
# Licences of the clips and captions in this folder

The clips were made from four npm packages (exact versions in manifest.json) by scaling their
animations and putting them on white. Pass this file on with the clips, with data made from them
and with models trained on them.

- `3d`, animated (@lobehub/fluent-emoji-anim-1 to -4), MIT: Fluent Emoji, (c) Microsoft Corporation,
  packed by LobeHub; scaled and put on white.
- Captions (names by way of emojibase-data), Unicode-3.0: Unicode CLDR, (c) Unicode, Inc.; articles,
  templates and words for the motion were added.

## MIT (3d, animated)

Fluent Emoji, animated. Source: https://github.com/microsoft/fluentui-emoji-animated
Packing: Copyright (c) LobeHub, https://github.com/lobehub/fluent-emoji

{_MIT}{_UNICODE}"""
